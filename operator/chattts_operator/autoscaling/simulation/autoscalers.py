"""Who decides in a run: ours by the very policy.decide, and four others by their documented algorithms.

All are pure but for what they remember themselves. Others are given the target that ours is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ...config import DEFAULT_SCALING_INTERVAL_SECONDS
from ...spec import Autoscaling
from ..policy import decide
from ..signals import Decision, Fleet, Metrics, Signals, State

TOLERANCE = 0.1  # of the Kubernetes HPA
HPA_INTERVAL_SECONDS = 15.0
HPA_STABILIZATION_SECONDS = 300.0
HPA_PERIOD_SECONDS = 15.0
HPA_PODS = 4
HPA_PERCENT = 100


class Autoscaler(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def interval(self) -> float:
        """Seconds between two decisions."""

    def decide(self, metrics: Metrics, fleet: Fleet, now: float) -> tuple[int, str]:
        """Replicas and why."""


@dataclass(slots=True)
class Ours:
    spec: Autoscaling
    name: str = "Operator"
    interval: float = DEFAULT_SCALING_INTERVAL_SECONDS
    state: State = field(default_factory=State)
    told: Callable[[Decision, float], None] = lambda _decision, _now: None

    def decide(self, metrics: Metrics, fleet: Fleet, now: float) -> tuple[int, str]:
        decision = decide(self.spec, Signals(metrics, fleet), self.state, now)
        self.state = decision.state
        self.told(decision, now)
        return decision.desired, decision.reason


@dataclass(slots=True)
class Recipe:
    """The rule as it is told: p99 over the target for two minutes, one more; well under it for five, one less."""

    spec: Autoscaling
    name: str = "rule alone"
    interval: float = HPA_INTERVAL_SECONDS
    _over: float | None = None
    _under: float | None = None

    def decide(self, metrics: Metrics, fleet: Fleet, now: float) -> tuple[int, str]:
        if metrics.offered is None:
            return fleet.committed, "NoData"
        target = self.spec.p99_milliseconds / 1000
        p99 = metrics.p99
        over = p99 is not None and p99 > target
        under = p99 is None or p99 < 0.6 * target
        self._over = None if not over else now if self._over is None else self._over
        self._under = None if not under else now if self._under is None else self._under
        if self._over is not None and now - self._over >= self.spec.sustained_seconds:
            self._over = None
            return self.spec.clamp(fleet.committed + 1), "Over"
        if self._under is not None and now - self._under >= HPA_STABILIZATION_SECONDS:
            self._under = None
            return self.spec.clamp(fleet.committed - 1), "Under"
        return fleet.committed, "Stay"


@dataclass(slots=True)
class Hpa:
    """The controller of autoscaling/v2 with its defaults.

    `p99`: an Object metric with target Value. `qps`: an External metric with target AverageValue.
    A metric without a value forbids scale-in and says nothing else; with `null_is_zero`, as in KEDA's Prometheus
    trigger by default, it is 0.
    """

    spec: Autoscaling
    name: str
    p99: float | None = None
    qps: float | None = None
    null_is_zero: bool = False
    interval: float = HPA_INTERVAL_SECONDS
    _wanted: list[tuple[float, int]] = field(default_factory=list)
    _added: list[tuple[float, int]] = field(default_factory=list)

    def decide(self, metrics: Metrics, fleet: Fleet, now: float) -> tuple[int, str]:
        current = fleet.committed
        asked = [
            self._by_value(metrics.p99, fleet) if self.p99 else current,
            self._by_average(metrics.offered, fleet) if self.qps else 0,
        ]
        if not self.p99:
            asked = asked[1:]
        known = [value for value in asked if value is not None]
        if not known:
            return current, "NoData"
        wanted = max(known)
        if len(known) < len(asked) and wanted < current:
            return current, "NoData"
        wanted = self._stabilized(self.spec.clamp(wanted), current, now)
        wanted = self.spec.clamp(self._limited(wanted, current, now))
        if wanted > current:
            self._added.append((now, wanted - current))
        return wanted, "Metrics"

    def _by_value(self, value: float | None, fleet: Fleet) -> int | None:
        if value is None:
            if not self.null_is_zero:
                return None
            value = 0.0
        assert self.p99 is not None
        ratio = value / self.p99
        return fleet.committed if abs(ratio - 1) <= TOLERANCE else math.ceil(ratio * fleet.ready - 1e-9)

    def _by_average(self, value: float | None, fleet: Fleet) -> int | None:
        if value is None:
            if not self.null_is_zero:
                return None
            value = 0.0
        assert self.qps is not None
        ratio = value / (self.qps * max(1, fleet.committed))
        return fleet.committed if abs(ratio - 1) <= TOLERANCE else math.ceil(value / self.qps - 1e-9)

    def _stabilized(self, wanted: int, current: int, now: float) -> int:
        recent = [(at, value) for at, value in self._wanted if now - at < HPA_STABILIZATION_SECONDS]
        self._wanted = [*recent, (now, wanted)]
        highest = max(value for _, value in self._wanted)
        return wanted if wanted >= current else min(current, highest)

    def _limited(self, wanted: int, current: int, now: float) -> int:
        """Of the policies "4 pods" and "100 percent" per 15 s the one that allows more."""
        self._added = [(at, count) for at, count in self._added if now - at < HPA_PERIOD_SECONDS]
        base = current - sum(count for _, count in self._added)
        return min(wanted, max(base + HPA_PODS, math.ceil(base * (1 + HPA_PERCENT / 100))))


def hpa_on_p99(spec: Autoscaling) -> Autoscaler:
    return Hpa(spec, "HPA on p99", p99=spec.p99_milliseconds / 1000)


def hpa_on_qps(spec: Autoscaling, qps: float) -> Autoscaler:
    return Hpa(spec, "HPA on QPS", qps=qps)


def keda(spec: Autoscaling, qps: float) -> Autoscaler:
    """A ScaledObject with two Prometheus triggers, QPS and p99: KEDA hands both to an HPA."""
    return Hpa(spec, "KEDA on both", p99=spec.p99_milliseconds / 1000, qps=qps, null_is_zero=True)
