"""What one pod carries: from a closed loop's steps to a curve, and from the curve to the targets of a spec. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..spec import Autoscaling, OperatorDefaults, parse
from .rules import Promise
from .simulation import loads
from .simulation.autoscalers import Recipe
from .simulation.curve import Curve, CurveError, fitted
from .simulation.world import Setting, run

ENOUGH_GAIN = 1.05  # a step that brings less than 5 % more ends the ramp: the pod is full
LATE_PERCENT = 1.0  # what the promise allows
SEARCH_SECONDS = 900.0
SEARCH_TURNS = 7


@dataclass(frozen=True, slots=True)
class Step:
    """One number of clients, each asking again when it is answered."""

    clients: int
    answered: int
    refused: int
    failed: int
    seconds: float  # that were measured
    mean_latency: float  # seconds
    p99: float

    @property
    def rps(self) -> float:
        return self.answered / self.seconds


@dataclass(frozen=True, slots=True)
class Targets:
    qps: float
    concurrency: int
    curve: Curve


def is_full(steps: Sequence[Step]) -> bool:
    """No more clients are needed: they are refused, or bring hardly more."""
    if not steps or not steps[-1].answered or steps[-1].refused:
        return bool(steps)
    return len(steps) > 1 and steps[-1].rps < ENOUGH_GAIN * steps[-2].rps


def targets_of(steps: Sequence[Step], slo_seconds: float, max_wait: float) -> Targets:
    """Raises CurveError where the steps are too few."""
    useful = [step for step in steps if step.answered]
    if len(useful) < 2:
        raise CurveError("too little was answered to say what one pod carries")
    best = max(useful, key=lambda step: step.rps)
    batch = next(step.clients for step in useful if step.rps * ENOUGH_GAIN >= best.rps)
    points = [(step.clients, step.mean_latency) for step in useful if step.clients <= batch]
    if len(points) < 2:
        return answerable(Curve(useful[0].mean_latency, 0.0, 1), slo_seconds, max_wait)
    return answerable(fitted(points, batch), slo_seconds, max_wait)


def answerable(curve: Curve, slo_seconds: float, max_wait: float) -> Targets:
    """The highest rate at which 99 of 100 requests that come when they like are in time, by simulation.

    A closed loop's own rate would promise too much: its clients wait for each other, those of a service do not.
    """
    body = {
        "kind": "TTSService",
        "metadata": {"name": "one", "namespace": "default", "uid": "one"},
        "spec": {"model": {"source": "HostPath", "hostPath": "/"}, "autoscaling": {"maxReplicas": 1}},
    }
    alone = parse(body, OperatorDefaults(has_prometheus=True)).autoscaling
    low, high = 0.0, curve.capacity
    for _ in range(SEARCH_TURNS):
        middle = (low + high) / 2
        low, high = (middle, high) if _keeps(curve, middle, alone, slo_seconds, max_wait) else (low, middle)
    together = low * curve.seconds(1)
    for _ in range(20):  # Little: requests at a time = rate * seconds, which grow with the requests at a time
        together = low * curve.seconds(max(1, round(together)))
    return Targets(low, max(1, round(together)), curve)


def _keeps(curve: Curve, rate: float, alone: Autoscaling, slo_seconds: float, max_wait: float) -> bool:
    promise = replace(Promise(), milliseconds=round(slo_seconds * 1000))
    setting = Setting(curve=curve, promise=promise, max_wait=max_wait, replicas=1)
    return run(loads.constant(rate, SEARCH_SECONDS), Recipe(alone), setting).bad_percent <= LATE_PERCENT


def report(steps: Sequence[Step], targets: Targets | None, slo_seconds: float) -> str:
    lines = ["clients  answered/s  mean     p99      refused  failed"]
    lines += [
        f"{step.clients:7d}  {step.rps:10.2f}  {step.mean_latency:5.2f} s  {step.p99:5.2f} s  "
        f"{step.refused:7d}  {step.failed:6d}"
        for step in steps
    ]
    if targets is None:
        return "\n".join(lines)
    curve = targets.curve
    lines += [
        "",
        f"a request takes {curve.t0:.3f} s + {curve.t1:.3f} s for each of up to {curve.batch} at a time",
        f"within {slo_seconds:g} s for 99 of 100: {targets.qps:.2f} requests/s (full: {curve.capacity:.2f})",
    ]
    if targets.qps <= 0:
        lines += ["", "no rate keeps this promise: a request alone takes longer; raise targets.p99Milliseconds"]
        return "\n".join(lines)
    lines += [
        "",
        "autoscaling:",
        "  targets:",
        f'    qpsPerReplica: "{max(0.001, targets.qps):.3g}"',
        f"    concurrencyPerReplica: {targets.concurrency}",
    ]
    return "\n".join(lines)
