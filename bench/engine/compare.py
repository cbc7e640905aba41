"""Ratios with intervals from interleaved repeats. Pure numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Student's t, two-sided 95 %, by degrees of freedom.
_T95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}
_T95_LARGE = 1.96


@dataclass(frozen=True, slots=True)
class Ratio:
    """Geometric mean of a repeat's ratios, and its 95 % interval."""

    value: float
    low: float
    high: float


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """`ours[i]` and `theirs[i]` were measured next to each other; needs two repeats or more."""
    logs = [math.log(mine / other) for mine, other in zip(ours, theirs, strict=True)]
    mean = statistics.fmean(logs)
    half = _T95.get(len(logs) - 1, _T95_LARGE) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def interleaved(count: int, repeat: int) -> list[int]:
    """0 1 2 ... and in the next repeat backwards, so that a drift of the machine meets all arms alike."""
    order = list(range(count))
    return order if repeat % 2 == 0 else order[::-1]
