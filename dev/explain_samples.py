"""What `chattts-operator explain` says in eight situations, for docs/autoscaling.md; `--check` only compares.

Every situation is decided by policy.decide and goes through status, as in a cluster.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chattts_operator.autoscaling import memory
from chattts_operator.autoscaling.explain import explain
from chattts_operator.autoscaling.history import Window
from chattts_operator.autoscaling.policy import decide
from chattts_operator.autoscaling.signals import Change, ColdStart, Fleet, Metrics, Signals, State
from chattts_operator.spec import OperatorDefaults, parse

PAGE = Path(__file__).parents[1] / "docs" / "autoscaling.md"
BEGIN, END = "<!-- samples: made by make simulate-table -->", "<!-- end of the samples -->"
NOW = 1_800_000_000.0
CALM = Metrics(
    offered=12.0, offered_5m=12.0, completed=12.0, refused=0.0, p99=0.62, bad_ratio=0.0, breach=False,
    inflight=5.0, age=4.0, reporting=2, offered_30s=12.0,
)  # fmt: skip
BROKEN = replace(CALM, offered=24.0, offered_5m=24.0, completed=16.0, refused=8.0, p99=4.9, bad_ratio=0.6, breach=True)


@dataclass(frozen=True, slots=True)
class Situation:
    title: str
    metrics: Metrics
    fleet: Fleet
    state: State = field(default_factory=State)
    autoscaling: dict[str, Any] = field(default_factory=dict)


def fleet(committed: int, **values: Any) -> Fleet:
    usual = {"ready": committed, "ready_a_minute": committed, "last_ready_at": NOW - 900}
    return Fleet(committed, **(usual | values))


def _seen() -> State:
    """A service that has been through a breach."""
    change = Change(NOW - 1500, 1, 2, "SLOBreach", "p99 4.1 s (target 1.2 s), 6 rps refused of 20 rps, for 120 s")
    return State(
        learned_qps=9.8, cold_start=ColdStart(31.0, 14.0, 2.0), cold_start_pod="p", last_change=change,
        history=(change,), last_scale_time=change.time,
    )  # fmt: skip


def _window(wanted: int, seconds: int) -> Window:
    window = Window()
    for back in range(seconds, 0, -10):
        window = window.add(NOW - back, wanted, 300)
    return window


def situations() -> tuple[Situation, ...]:
    known, target = _seen(), {"targets": {"qpsPerReplica": "8"}}
    return (
        Situation("All is well, and nobody has said what one replica carries", CALM, fleet(2)),
        Situation("The promise is broken for two minutes", BROKEN, fleet(2)),
        Situation(
            "It is broken, and new pods are on their way",
            BROKEN,
            fleet(4, ready=2, ready_a_minute=2),
            replace(known, hold_until=NOW + 40),
        ),
        Situation("The load jumps", replace(CALM, offered=18.0, offered_30s=40.0), fleet(2), known, target),
        Situation(
            "Fewer would do, for two minutes so far",
            replace(CALM, reporting=4),
            fleet(4),
            replace(known, window=_window(2, 120)),
        ),
        Situation("Prometheus does not answer", Metrics(), fleet(2), known),
        Situation(
            "There are no more GPUs",
            replace(BROKEN, reporting=3),
            fleet(5, ready=3, ready_a_minute=3, unschedulable=2),
            known,
            {"targets": {"qpsPerReplica": "4"}},
        ),
        Situation(
            "A person holds the number",
            BROKEN,
            fleet(2),
            known,
            {"hold": {"until": "2027-01-15T10:00:00Z", "by": "Li, load test"}},
        ),
    )


def sample(situation: Situation) -> str:
    body: dict[str, Any] = {
        "kind": "TTSService",
        "metadata": {"name": "demo", "namespace": "default", "uid": "demo"},
        "spec": {
            "model": {"source": "PersistentVolumeClaim", "claimName": "weights"},
            "autoscaling": {"mode": "Operator", **situation.autoscaling},
        },
    }
    spec = parse(body, OperatorDefaults(has_prometheus=True))
    decision = decide(spec.autoscaling, Signals(situation.metrics, situation.fleet), situation.state, NOW)
    body["status"] = {
        "desiredReplicas": decision.desired,
        "readyReplicas": situation.fleet.ready,
        "autoscaling": memory.status_of(decision),
    }
    return explain(spec, body, NOW)


def section() -> str:
    return "\n".join([BEGIN, *_told(), END])


def _told() -> Iterator[str]:
    """The queries are the same in each: the first shows them."""
    for number, situation in enumerate(situations()):
        text = sample(situation)
        if number:
            text = text.partition("\nLook at it in Prometheus:")[0] + "\n"
        yield f"### {situation.title}\n\n```\n{text.rstrip()}\n```\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.explain_samples", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the page instead of writing it")
    check = parser.parse_args().check
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    made = before + section() + rest.partition(END)[2]
    if check and made != page:
        print(f"{PAGE.name}: its samples are not what explain says now; run make simulate-table", file=sys.stderr)
        return 1
    if not check:
        PAGE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
