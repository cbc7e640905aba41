"""The situations that policies are compared in, and the comparison itself. Pure and seeded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...spec import Autoscaling
from . import loads
from .autoscalers import Autoscaler, Ours, Recipe, hpa_on_p99, hpa_on_qps, keda
from .curve import Curve
from .loads import Load
from .outcome import Outcome, mean
from .world import Setting, run

SEEDS = (1, 2, 3)
RIGHT_QPS = 8.0  # what one replica of BATCHER answers within 1.2 s for 99 of 100 requests
RIGHT_QPS_SLOTS = 9.0
BATCHER = Curve(t0=0.25, t1=0.05, batch=8, slots=False)
SLOTS = replace(BATCHER, slots=True)

Policy = Callable[[Autoscaling, float], Autoscaler]


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    load: Load
    setting: Setting
    qps: float = RIGHT_QPS  # the right target


def _ours(share: float | None) -> Policy:
    def make(spec: Autoscaling, qps: float) -> Autoscaler:
        target = None if share is None else qps * share
        return Ours(replace(spec, qps_per_replica=target), OURS if share == 1 else f"{OURS}, no targets")

    return make


OURS = "this operator"
POLICIES: Mapping[str, Policy] = {
    "rule alone": lambda spec, _: Recipe(spec),
    "HPA on p99": lambda spec, _: hpa_on_p99(spec),
    "HPA on QPS": hpa_on_qps,
    "KEDA on both": keda,
    OURS: _ours(1.0),
    f"{OURS}, no targets": _ours(None),
}
OTHERS = tuple(name for name in POLICIES if not name.startswith(OURS))


# Policies that only the first situation shows: what a wrong target costs.
WRONG: Mapping[str, Policy] = {
    f"{OURS}, target 30 % too high": _ours(1.3),
    f"{OURS}, target 30 % too low": _ours(0.7),
}


def scenarios() -> tuple[Scenario, ...]:
    usual = Setting(curve=BATCHER)
    step = loads.step(10, 60)

    def between(first: float, last: float, factor: float) -> Callable[[float], float]:
        return lambda at: factor if first <= at < last else 1.0

    return (
        Scenario("step 10 > 60 > 10 rps", step, usual),
        Scenario("the same, refused clients retry twice", step, replace(usual, retries=2)),
        Scenario("the same with slots, as in our engine", step, replace(usual, curve=SLOTS), RIGHT_QPS_SLOTS),
        Scenario("the same, cold start of 300 s", step, replace(usual, cold_start=300)),
        Scenario("the same, only 5 GPUs", step, replace(usual, gpus=5)),
        Scenario("ramp 8 > 80 > 8 rps", loads.ramp(8, 80), usual),
        Scenario("diurnal 8 to 72 rps", loads.diurnal(8, 72), usual),
        Scenario("flash crowd, 60 rps for a minute", loads.flash_crowd(10, 60), usual),
        Scenario(
            "heavier texts, 1.8 times, at 20 rps",
            loads.constant(20),
            replace(usual, replicas=3, slowness=between(900, 2700, 1.8)),
        ),
        Scenario(
            "slow compute, 4.2 times, at 2 rps", loads.constant(2), replace(usual, slowness=between(900, 1800, 4.2))
        ),
    )


@dataclass(frozen=True, slots=True)
class Row:
    scenario: str
    policy: str
    outcomes: Sequence[Outcome] = field(repr=False)

    @property
    def figures(self) -> Mapping[str, float]:
        return mean(self.outcomes)


def compare(
    scenario: Scenario, spec: Autoscaling, seeds: Iterable[int] = SEEDS, names: Iterable[str] = tuple(POLICIES)
) -> list[Row]:
    """Every policy in the same situation with the same seeds."""
    rows = []
    for name in names:
        make = {**POLICIES, **WRONG}[name]
        outcomes = [
            run(scenario.load, make(spec, scenario.qps), replace(scenario.setting, seed=seed)) for seed in seeds
        ]
        rows.append(Row(scenario.name, name, outcomes))
    return rows


def is_dominated(row: Row, others: Iterable[Row]) -> bool:
    """Some other is at most as late and at most as costly, and better in one."""
    mine = (round(row.figures["badPercent"], 2), round(row.figures["replicaHours"], 2))
    for other in others:
        its = (round(other.figures["badPercent"], 2), round(other.figures["replicaHours"], 2))
        if its != mine and its[0] <= mine[0] and its[1] <= mine[1]:
            return True
    return False
