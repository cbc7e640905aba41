"""How much is asked for, now and when a pod that starts now is Ready. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..spec import Autoscaling
from .capacity import Capacity
from .cold_start import look_ahead
from .load import has_jumped, is_steady, present
from .signals import Metrics, State

CATCH_UP = 1.25  # while requests are refused: full queues have to be worked off beside the load
MOST_GROWTH = 1.5  # times the load of now
JUMP_SHOWS_TIMES = 3.0  # the first scrapes that see a jump show on average a third of it
JUMP_SECONDS = 300.0  # for which the longest window still mixes the load before a jump with that after it


@dataclass(frozen=True, slots=True)
class Demand:
    replicas: int
    reason: str
    message: str


def feed_forward(spec: Autoscaling, metrics: Metrics, capacity: Capacity | None, state: State, now: float) -> Demand:
    """Replicas for the load to come; 0 where nobody knows what one replica carries."""
    offered = metrics.offered or 0.0
    wanted, message = 0, f"{offered:.2g} rps"
    if capacity is not None:
        expected, why = expected_load(metrics, state, now)
        if metrics.refused:
            expected, why = CATCH_UP * expected, f"{why} and {CATCH_UP - 1:.0%} for the queues"
        wanted = math.ceil(expected / capacity.qps - 1e-9)
        message = f"{offered:.2g} rps, {expected:.2g} rps expected{why}, {capacity}"
    if spec.concurrency_per_replica and metrics.inflight is not None:
        busy = math.ceil(metrics.inflight / spec.concurrency_per_replica - 1e-9)
        if busy > wanted:
            wanted = busy
            message = f"{metrics.inflight:.2g} requests in flight, {spec.concurrency_per_replica} per replica"
    return Demand(wanted, "QPS", message)


def expected_load(metrics: Metrics, state: State, now: float) -> tuple[float, str]:
    """Requests per second and, where it is not simply what was asked for, why."""
    offered, newest = metrics.offered or 0.0, metrics.offered_30s
    if newest is not None and has_jumped(metrics):
        seen = f" because the newest scrapes show {newest:.2g} rps"
        if state.jump_time == now:
            return offered + JUMP_SHOWS_TIMES * (newest - offered), f"{seen} for the first time"
        return newest, seen
    if now - state.jump_time < JUMP_SECONDS or metrics.offered_5m is None:
        return offered, ""
    if is_steady(metrics):
        return present(metrics), ""
    growth = max(0.0, (offered - metrics.offered_5m) / 120)  # a second; the windows' middles lie 120 s apart
    return min(MOST_GROWTH * offered, offered + growth * look_ahead(state)), ""


def with_jump(metrics: Metrics, state: State, now: float) -> State:
    """Notes the first sight of a jump."""
    if has_jumped(metrics) and now - state.jump_time >= JUMP_SECONDS:
        return replace(state, jump_time=now)
    return state
