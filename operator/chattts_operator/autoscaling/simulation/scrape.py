"""What Prometheus makes of the pods' samples: rates with its extrapolation, the recorded rules on their grid, Metrics.

Pure. The formulas are those of autoscaling/rules.py; tests compare them with promtool's answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ..rules import BAD_SHARE, STEP_SECONDS, Promise
from ..signals import Metrics
from .pod import Pod, Sample

TOO_FAR = 1.1  # mean intervals: Prometheus extrapolates to the window's edge only if it is nearer


def factor(first: float, last: float, count: int, start: float, end: float, to_zero: float) -> float:
    """By how much rate() enlarges an increase, for the edges of the window at which there is no sample."""
    between = last - first
    mean = between / (count - 1)
    before, after = first - start, end - last
    if before >= TOO_FAR * mean:
        before = mean / 2
    if after >= TOO_FAR * mean:
        after = mean / 2
    return (between + min(before, to_zero) + after) / between


@dataclass(frozen=True, slots=True)
class Rates:
    """Sums over pods, per second."""

    buckets: tuple[float, ...]  # cumulative; the last is of all that finished
    offered: float
    refused: float


def rates(pods: Iterable[Pod], now: float, window: float) -> Rates | None:
    """None where no pod has two samples in the window."""
    total: list[float] = []
    for pod in pods:
        inside = within(pod.samples, now, window)
        if len(inside) < 2:
            continue
        first, last, count = inside[0], inside[-1], len(inside)
        start = now - window

        def rate(
            before: int,
            after: int,
            first: Sample = first,
            last: Sample = last,
            count: int = count,
            start: float = start,
        ) -> float:
            grown = after - before
            if not grown:
                return 0.0
            to_zero = (last.time - first.time) * before / grown
            return grown * factor(first.time, last.time, count, start, now, to_zero) / window

        mine = [
            *map(rate, first.buckets, last.buckets),
            rate(first.offered, last.offered),
            rate(first.refused, last.refused),
        ]
        total = [one + other for one, other in zip(total, mine, strict=True)] if total else mine
    return Rates(tuple(total[:-2]), total[-2], total[-1]) if total else None


def within(samples: deque[Sample], now: float, window: float) -> list[Sample]:
    """Newest samples of (now - window, now], oldest first."""
    found = []
    for sample in reversed(samples):
        if sample.time <= now - window:
            break
        if sample.time <= now:
            found.append(sample)
    return found[::-1]


def quantile(share: float, bounds: tuple[float, ...], buckets: tuple[float, ...]) -> float | None:
    """histogram_quantile; None where it is NaN."""
    if not buckets or buckets[-1] <= 0:
        return None
    rank = share * buckets[-1]
    place = next(index for index, count in enumerate(buckets) if count >= rank)
    if place >= len(bounds):
        return bounds[-1]
    low, below = (bounds[place - 1], buckets[place - 1]) if place else (0.0, 0.0)
    inside = buckets[place] - below
    return low + (bounds[place] - low) * ((rank - below) / inside if inside else 1.0)


@dataclass(slots=True)
class Prometheus:
    """`evaluate` on the grid of the rules, `read` at a tick: the newest record of each, and the age now."""

    promise: Promise
    bounds: tuple[float, ...]
    _record: Metrics = field(default_factory=Metrics)
    _over: deque[tuple[float, bool]] = field(default_factory=deque)

    def evaluate(self, pods: list[Pod], now: float) -> None:
        minute, five = rates(pods, now, 60), rates(pods, now, 300)
        if minute is None:
            self._record = Metrics()
            return
        bad = self._bad_ratio(minute)
        self._over.append((now, bad is not None and bad > BAD_SHARE))
        inflight, reporting = _gauges(pods, now)
        self._record = Metrics(
            offered=minute.offered,
            offered_5m=None if five is None else five.offered,
            completed=minute.buckets[-1],
            refused=minute.refused,
            p99=quantile(0.99, self.bounds, minute.buckets),
            bad_ratio=bad,
            breach=self._breach(pods, now),
            inflight=inflight,
            reporting=reporting,
        )

    def read(self, pods: list[Pod], now: float) -> Metrics:
        newest = [pod.samples[-1].time for pod in pods if pod.samples]
        if not newest:
            return Metrics()
        fresh = rates(pods, now, 30)
        offered = None if fresh is None else fresh.offered
        return replace(self._record, age=now - max(newest), offered_30s=offered)

    def _bad_ratio(self, minute: Rates) -> float | None:
        judged = minute.buckets[-1] + minute.refused
        if judged <= 0:
            return None
        return 1 - minute.buckets[self.bounds.index(self.promise.milliseconds / 1000)] / judged

    def _breach(self, pods: list[Pod], now: float) -> bool | None:
        window = self.promise.steps * STEP_SECONDS + STEP_SECONDS // 2
        while self._over and self._over[0][0] <= now - window:
            self._over.popleft()
        judged = rates(pods, now, self.promise.sustained_seconds)
        if judged is None:
            return None
        enough = (judged.buckets[-1] + judged.refused) * self.promise.sustained_seconds >= self.promise.min_samples
        return enough and len(self._over) > self.promise.steps and all(over for _, over in self._over)


def _gauges(pods: Iterable[Pod], now: float) -> tuple[float, int]:
    """Mean requests in flight over a minute, and pods with two samples in it."""
    inflight, reporting = 0.0, 0
    for pod in pods:
        inside = within(pod.samples, now, 60)
        if inside:
            inflight += sum(sample.inflight for sample in inside) / len(inside)
        reporting += len(inside) >= 2
    return inflight, reporting
