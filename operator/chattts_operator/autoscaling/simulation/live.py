"""What a live service was asked and how fast its pods were, from Prometheus: the load and the curve of a what-if."""

from __future__ import annotations

from typing import Protocol

from ... import api
from .. import rules
from . import loads
from .curve import Curve, CurveError, fitted
from .loads import Load, LoadError

MOST_POINTS = 10_000  # of an answer; Prometheus refuses more than 11,000
FINEST_SECONDS = 60.0


class Source(Protocol):
    async def history(self, expression: str, start: float, end: float, step: float) -> list[tuple[float, float]]: ...


async def load_of(source: Source, key: api.Key, start: float, end: float) -> Load:
    """Raises LoadError where Prometheus knows nothing. What it missed is filled with the rate before."""
    selector = rules.selector_of(*key)
    expression = f"{rules.OFFERED}{rules.matchers(selector)} or {rules.offered('1m', selector)}"
    points = await source.history(expression, start, end, _step(start, end))
    if not points:
        raise LoadError(f"Prometheus has no requests of {key} in this range")
    return loads.stepwise(f"history of {key}", [(time - points[0][0], rate) for time, rate in points])


async def curve_of(source: Source, key: api.Key, start: float, end: float, batch: int) -> Curve:
    """A line through (requests at a time in a pod, seconds of a request). Raises CurveError where nothing varied."""
    selector, by, step = rules.selector_of(*key), rules.BY, _step(start, end)
    metric = "chattts_infer_duration_seconds"
    seconds = f"{by} (rate({metric}_sum{{{selector}}}[5m])) / {by} (rate({metric}_count{{{selector}}}[5m]))"
    together = f"avg by (namespace, tts_service) (avg_over_time(chattts_inflight_requests{{{selector}}}[5m]))"
    took = dict(await source.history(seconds, start, end, step))
    held = dict(await source.history(together, start, end, step))
    points = [(max(1.0, held[time]), took[time]) for time in took.keys() & held.keys() if 0.2 <= held[time] <= batch]
    if len(points) < 10:
        raise CurveError(f"Prometheus has {len(points)} points of {key} with requests in its pods; give --t0 and --t1")
    return fitted(points, batch)


def _step(start: float, end: float) -> float:
    return max(FINEST_SECONDS, (end - start) / MOST_POINTS)
