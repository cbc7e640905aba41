"""What the windows over which load is measured say together: steady, grown, or jumped. Pure."""

from __future__ import annotations

import math

from .signals import Metrics

STEADY_SHARE = 0.05
STEADY_SIGMAS = 4.0
NEWEST_SECONDS = 15.0  # a window of 30 s holds two scrapes, which are one interval
JUMP_RATIO = 1.25
JUMP_SIGMAS = 4.0


def present(metrics: Metrics) -> float:
    """Requests per second, without the noise of a minute where five say the same."""
    if is_steady(metrics) and metrics.offered_5m is not None:
        return metrics.offered_5m
    return metrics.offered or 0.0


def is_steady(metrics: Metrics) -> bool:
    """The last minute differs from the last five by no more than chance: then the five say it better."""
    offered, before = metrics.offered, metrics.offered_5m
    if offered is None or before is None:
        return False
    return abs(offered - before) <= max(STEADY_SHARE * offered, STEADY_SIGMAS * math.sqrt(offered / 60))


def has_jumped(metrics: Metrics) -> bool:
    """The newest scrapes show far more than the last minute, and more than chance does."""
    offered, newest = metrics.offered, metrics.offered_30s
    if offered is None or newest is None:
        return False
    chance = JUMP_SIGMAS * math.sqrt(max(offered, 1.0) / NEWEST_SECONDS)
    return newest > JUMP_RATIO * offered and newest - offered > chance
