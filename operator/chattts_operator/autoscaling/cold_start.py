"""How long a new pod takes, by phase: a moving average over pods, and how far ahead to look because of it. Pure."""

from __future__ import annotations

from dataclasses import replace

from .signals import ColdStart, Fleet, State

UNSEEN_SECONDS = 90.0  # until one was seen
RANGE_SECONDS = (30.0, 600.0)
NEWEST_SHARE = 0.3


def learned(state: State, fleet: Fleet) -> State:
    """Each pod counts once."""
    if fleet.cold_start is None or fleet.cold_start[0] == state.cold_start_pod:
        return state
    pod, newest = fleet.cold_start
    old = state.cold_start
    average = newest if old is None else _average(old, newest)
    return replace(state, cold_start_pod=pod, cold_start=average)


def look_ahead(state: State) -> float:
    """Seconds until a pod that is asked for now serves. A wait for a free GPU is not in it: it teaches nothing."""
    low, high = RANGE_SECONDS
    seconds = UNSEEN_SECONDS if state.cold_start is None else state.cold_start.seconds
    return min(high, max(low, seconds))


def _average(old: ColdStart, newest: ColdStart) -> ColdStart:
    def mix(before: float | None, now: float | None) -> float | None:
        if before is None or now is None:
            return now if before is None else before
        return (1 - NEWEST_SHARE) * before + NEWEST_SHARE * now

    starting = (1 - NEWEST_SHARE) * old.starting + NEWEST_SHARE * newest.starting
    return ColdStart(starting, mix(old.pulling, newest.pulling), mix(old.placing, newest.placing))
