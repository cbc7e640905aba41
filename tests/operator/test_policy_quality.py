"""How well the policy does, by simulation, in the forms that take seconds; the whole table: dev/policy_table.py."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from chattts_operator import api
from chattts_operator.autoscaling import memory, rules
from chattts_operator.autoscaling.prometheus import PrometheusError, metrics_of, series_of
from chattts_operator.autoscaling.rules import Promise
from chattts_operator.autoscaling.signals import Decision, Fleet, Metrics
from chattts_operator.autoscaling.simulation import loads
from chattts_operator.autoscaling.simulation.autoscalers import Ours, hpa_on_p99, hpa_on_qps
from chattts_operator.autoscaling.simulation.outcome import Outcome, mean
from chattts_operator.autoscaling.simulation.scenarios import BATCHER, RIGHT_QPS, SEEDS, SLOTS
from chattts_operator.autoscaling.simulation.world import Setting, run
from chattts_operator.spec import Autoscaling, OperatorDefaults, parse
from tests.operator.fakes import tts_service

RIGHT = {"targets": {"qpsPerReplica": str(RIGHT_QPS)}}


def policy(**autoscaling: Any) -> Autoscaling:
    body = tts_service(autoscaling={"mode": "Operator", "maxReplicas": 16, **autoscaling})
    return parse(body, OperatorDefaults(has_prometheus=True)).autoscaling


def changes(outcome: Outcome, after: float = 0.0) -> list[tuple[float, int, int]]:
    pairs = zip(outcome.timeline, outcome.timeline[1:], strict=False)
    return [
        (two.time, one.desired, two.desired) for one, two in pairs if one.desired != two.desired and two.time > after
    ]


# --- the committed step ---


@pytest.mark.parametrize(("targets", "percent"), [(RIGHT, 6.5), ({}, 12.0)], ids=["right target", "no targets"])
def test_a_step_of_six_times(targets: dict[str, Any], percent: float) -> None:
    """The bars of the committed scenario. Beside it, an HPA on QPS is later and one on p99 is dearer."""
    setting, load = Setting(curve=BATCHER), loads.step(10, 60)
    ours = mean([run(load, Ours(policy(**targets)), replace(setting, seed=seed)) for seed in SEEDS])
    assert ours["badPercent"] <= percent
    assert ours["replicaHours"] <= 7.7
    if targets:
        by_qps = run(load, hpa_on_qps(policy(), RIGHT_QPS), setting)
        by_p99 = run(load, hpa_on_p99(policy()), setting)
        assert ours["badPercent"] < min(by_qps.bad_percent, by_p99.bad_percent)
        assert ours["replicaHours"] < by_p99.replica_hours


# --- constant load ---


@pytest.mark.parametrize("times", [1.3, 5.0])
def test_overload_without_targets_settles(times: float) -> None:
    """An hour here, four in the long form: after a quarter of it nothing changes, and nobody is refused."""
    load = loads.constant(times * SLOTS.capacity, 3600)
    outcome = run(load, Ours(policy()), Setting(curve=SLOTS, replicas=1))
    assert changes(outcome, after=900) == []
    assert outcome.peak > 1
    settled = loads.constant(times * SLOTS.capacity, 900)
    calm = run(settled, Ours(policy()), Setting(curve=SLOTS, replicas=outcome.timeline[-1].desired))
    assert calm.refusals == 0


@pytest.mark.long
@pytest.mark.parametrize("times", [1.3, 5.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_overload_without_targets_settles_for_four_hours(times: float, seed: int) -> None:
    load = loads.constant(times * SLOTS.capacity, 4 * 3600)
    outcome = run(load, Ours(policy()), Setting(curve=SLOTS, replicas=1, seed=seed))
    assert changes(outcome, after=900) == []


@pytest.mark.parametrize("share", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("targets", [RIGHT, {}], ids=["target", "no target"])
def test_constant_load_below_the_target_changes_nothing(share: float, targets: dict[str, Any]) -> None:
    outcome = run(loads.constant(share * RIGHT_QPS), Ours(policy(**targets)), Setting(curve=SLOTS, replicas=1))
    assert changes(outcome) == []


# --- few GPUs ---


def test_without_gpus_it_does_not_pile_up_pods() -> None:
    load, spec = loads.step(10, 60, 1200), policy(**RIGHT)
    scarce = run(load, Ours(spec), Setting(curve=BATCHER, gpus=5))
    assert scarce.peak <= 6
    assert run(load, hpa_on_p99(policy()), Setting(curve=BATCHER, gpus=5)).peak == 16
    assert run(load, Ours(spec), Setting(curve=BATCHER)).peak > 6  # the same with enough


# --- restarts ---


@dataclass(slots=True)
class Restarting(Ours):
    """At one tick the process is another one: what it knows is what status says."""

    at_tick: int = -1
    _tick: int = 0

    def decide(self, metrics: Metrics, fleet: Fleet, now: float) -> tuple[int, str]:
        if self._tick == self.at_tick:
            committed = fleet.committed
            self.state = memory.state_of(memory.status_of(Decision(committed, committed, "", "", self.state)))
        self._tick += 1
        return Ours.decide(self, metrics, fleet, now)


STORY = loads.step(5, 24, 1500)


@pytest.fixture(scope="module", params=[RIGHT, {}], ids=["target", "no target"])
def story(request: pytest.FixtureRequest) -> tuple[Autoscaling, Outcome]:
    spec = policy(**request.param)
    return spec, run(STORY, Ours(spec), Setting(curve=SLOTS, replicas=1))


@pytest.mark.parametrize("number", range(25))
def test_a_restart_decides_the_same_and_only_delays_scale_in(story: tuple[Autoscaling, Outcome], number: int) -> None:
    """25 random ticks, with and without a target: 50 restarts."""
    spec, plain = story
    tick = random.Random(f"restart {number}").randrange(len(plain.timeline))
    restarted = run(STORY, Restarting(spec, at_tick=tick), Setting(curve=SLOTS, replicas=1))
    downs = [at for at, before, after in changes(plain) if after < before]
    first_down = next((at for at in downs if at >= plain.timeline[tick].time), STORY.seconds)
    for one, other in zip(plain.timeline, restarted.timeline, strict=True):
        if one.time < first_down:
            assert other.desired == one.desired, (tick, one.time)
        else:
            assert other.desired >= one.desired, (tick, one.time)
    assert max(point.desired for point in plain.timeline) > 1


# --- missing data ---

KEY = api.Key("default", "demo")
LABELS = {"namespace": KEY.namespace, "tts_service": KEY.name}
Answers = dict[str, tuple[int, bytes]]


def vector(value: float | str | None, **labels: str) -> bytes:
    item = {"metric": {**LABELS, **labels}, "value": [0, str(value)]}
    result = [] if value is None else [item]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


def answers_of(metrics: Metrics) -> Answers:
    """As Prometheus would say it."""
    values = {
        rules.OFFERED: metrics.offered,
        rules.OFFERED_5M: metrics.offered_5m,
        rules.OFFERED_30S: metrics.offered_30s,
        rules.COMPLETED: metrics.completed,
        rules.REFUSED: metrics.refused,
        rules.INFLIGHT: metrics.inflight,
        rules.REPORTING: metrics.reporting,
        rules.AGE: metrics.age,
        rules.P99: metrics.p99,
        rules.BAD_RATIO: metrics.bad_ratio,
        rules.BREACH: None if metrics.breach is None else int(metrics.breach),
    }
    return {name: (200, vector(value)) for name, value in values.items()}


def all_of(status: int, body: bytes) -> Callable[[Answers], Answers]:
    return lambda answers: dict.fromkeys(answers, (status, body))


def one_of(name: str, value: float | str | None) -> Callable[[Answers], Answers]:
    return lambda answers: {**answers, name: (200, vector(value))}


def changed(old: str, new: str) -> Callable[[Answers], Answers]:
    return lambda answers: {
        name: (status, body.replace(old.encode(), new.encode())) for name, (status, body) in answers.items()
    }


def twice(answers: Answers) -> Answers:
    def doubled(body: bytes) -> bytes:
        answer = json.loads(body)
        answer["data"]["result"] = [
            {**item, "metric": {**item["metric"], "replica": replica}}
            for item in answer["data"]["result"]
            for replica in ("a", "b")
        ]
        return json.dumps(answer).encode()

    return {name: (status, doubled(body)) for name, (status, body) in answers.items()}


def away(_answers: Answers) -> Answers:
    raise PrometheusError("Prometheus cannot be reached")


FAULTS: Mapping[str, Callable[[Answers], Answers]] = {
    "away, or too slow": away,
    "HTTP 500": all_of(500, b"oops"),
    "HTTP 302 to somewhere": all_of(302, vector(1)),
    "HTTP 429": all_of(429, b'{"status": "error", "error": "busy"}'),
    "no JSON": all_of(200, b"<html>"),
    "cut in the middle": all_of(200, vector(1)[:40]),
    "status error": all_of(200, b'{"status": "error", "error": "query timed out"}'),
    "partial answer": changed('"status": "success"', '"status": "success", "warnings": ["a store is away"]'),
    "a matrix": changed('"vector"', '"matrix"'),
    "nothing at all": all_of(200, vector(None)),
    "another service only": changed('"demo"', '"other"'),
    "labels are missing": changed('"tts_service"', '"service"'),
    "two series for each": twice,
    "one query of eleven fails": lambda answers: {**answers, rules.INFLIGHT: (503, b"")},
    "load is NaN": one_of(rules.OFFERED, "NaN"),
    "load is infinite": one_of(rules.OFFERED, "+Inf"),
    "load is negative": one_of(rules.OFFERED, -1),
    "no age": one_of(rules.AGE, None),
    "samples of two minutes ago": one_of(rules.AGE, 120),
    "a clock that runs ahead": one_of(rules.AGE, -30),
    "half of the pods report": one_of(rules.REPORTING, 2),
    "no pod reports": one_of(rules.REPORTING, 0),
    "p99 is NaN": one_of(rules.P99, "NaN"),
    "the rule is not evaluated": one_of(rules.BREACH, None),
    "a text for a number": one_of(rules.P99, "fast"),
}


@dataclass(slots=True)
class Blind(Ours):
    """Hears Prometheus through the operator's own door, with a fault on the wire."""

    fault: Callable[[Answers], Answers] = lambda answers: answers
    promise: Promise = field(default_factory=Promise)

    def decide(self, metrics: Metrics, fleet: Fleet, now: float) -> tuple[int, str]:
        try:
            heard = {name: series_of(*answer) for name, answer in self.fault(answers_of(metrics)).items()}
            metrics = metrics_of(KEY, self.promise, heard)
        except PrometheusError:
            metrics = Metrics()
        return Ours.decide(self, metrics, fleet, now)


def desired_after(fault: Callable[[Answers], Answers]) -> int:
    outcome = run(loads.constant(4, 900), Blind(policy(**RIGHT), fault=fault), Setting(curve=SLOTS, replicas=4))
    assert outcome.ups == 0
    return outcome.timeline[-1].desired


def test_the_same_without_a_fault_scales_in() -> None:
    assert desired_after(lambda answers: answers) == 1


@pytest.mark.parametrize("name", FAULTS)
def test_missing_data_never_scales_in(name: str) -> None:
    assert desired_after(FAULTS[name]) == 4
