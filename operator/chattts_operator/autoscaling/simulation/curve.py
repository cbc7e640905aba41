"""How long a pod takes: t0 + t1 * n seconds for n requests at a time. Pure; fits that line to what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

FULL_SIZE_STEPS_A_SECOND = 46.875  # decode steps of one second of audio


class CurveError(ValueError):
    """Measurements that no line can be laid through; the text says why."""


@dataclass(frozen=True, slots=True)
class Curve:
    """`slots`: a request joins as soon as one of `batch` places is free, as in our engine.

    Without, the next batch begins when the last one has ended, as in a batcher around a model.
    """

    t0: float = 0.25  # seconds of a request, however few there are
    t1: float = 0.05  # seconds more for each request at a time
    batch: int = 8
    slots: bool = True

    def __post_init__(self) -> None:
        if self.t0 < 0 or self.t1 < 0 or self.t0 + self.t1 <= 0 or self.batch < 1:
            raise CurveError(
                f"t0 {self.t0:g} s, t1 {self.t1:g} s, batch {self.batch}: no time may be negative or all 0"
            )

    def seconds(self, together: int) -> float:
        return self.t0 + self.t1 * together

    @property
    def capacity(self) -> float:
        """Requests per second of a full pod."""
        return self.batch / self.seconds(self.batch)

    def slower(self, factor: float) -> Curve:
        return replace(self, t0=self.t0 * factor, t1=self.t1 * factor)


def fitted(points: Sequence[tuple[float, float]], batch: int) -> Curve:
    """Least squares through (requests at a time, seconds of a request); a negative part becomes 0."""
    if len({together for together, _ in points}) < 2:
        raise CurveError("a service curve needs times at two or more concurrencies")
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    slope = max(0.0, slope)
    intercept = mean_y - slope * mean_x
    if intercept < 0:
        intercept, slope = 0.0, sum(x * y for x, y in points) / sum(x * x for x, _ in points)
    return Curve(intercept, slope, batch)


def of_engine_report(report: Mapping[str, Any], arm: str, audio_seconds: float) -> Curve:
    """From what `make bench-engine` writes: steps of one row alone, and audio per second with all rows busy.

    `audio_seconds` is the mean length of a request's audio.
    """
    try:
        arms = report["arms"]
        alone = _median(arms["steps per second, one row"][arm])
        full = _median(arms["audio seconds per second, saturated"][arm])
        batch = int(report["step"][arm]["rows"])
    except (KeyError, TypeError) as error:
        raise CurveError(f"the report has no figure {error} for {arm!r}") from error
    steps = audio_seconds * FULL_SIZE_STEPS_A_SECOND
    return fitted([(1, steps / alone), (batch, audio_seconds * batch / full)], batch)


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
