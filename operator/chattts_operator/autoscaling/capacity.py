"""What one replica carries within the promise: what the user says, and what breaches and calm taught. Pure.

The lower of both counts: a target that is set too high would bring the same breach again after every scale-in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..spec import Autoscaling
from .load import present
from .signals import Fleet, Metrics, State

SATURATED_SHARE = 0.7  # of what a pod that refuses finishes: that is its limit, and the promise breaks before it
LATE_SHARE = 0.9  # of what a pod finishes that is late without refusing
CALM_SHARE = 0.8  # of the target: p99 above it forbids scale-in
KEEP_SHARE = 0.9  # of the capacity that the remaining pods may be loaded with after a scale-in
OUTAGE_SHARE = 0.1  # of what is asked for: who finishes less is broken, and its limit is not to be seen
ALONE_INFLIGHT = 0.75  # fewer requests at a time than this in each pod: nobody waits for another


@dataclass(frozen=True, slots=True)
class Capacity:
    qps: float  # of one replica
    learned: bool

    def __str__(self) -> str:
        return f"{self.qps:.2g} rps per replica{' as learned' if self.learned else ''}"


def capacity_of(spec: Autoscaling, state: State) -> Capacity | None:
    """None: nobody knows yet."""
    told, learned = spec.qps_per_replica, state.learned_qps
    if learned and (told is None or learned < told):
        return Capacity(learned, learned=True)
    return None if told is None else Capacity(told, learned=False)


def is_compute_bound(metrics: Metrics, fleet: Fleet) -> bool:
    """Late although requests are alone in their pods: more pods would be as slow."""
    if metrics.refused or metrics.inflight is None or not fleet.ready:
        return False
    return metrics.inflight / fleet.ready < ALONE_INFLIGHT


def learned_from_breach(metrics: Metrics, fleet: Fleet, state: State) -> State:
    if not metrics.completed or not fleet.ready or metrics.completed < OUTAGE_SHARE * (metrics.offered or 0.0):
        return state
    share = SATURATED_SHARE if metrics.refused else LATE_SHARE
    return replace(state, learned_qps=share * metrics.completed / fleet.ready)


def learned_from_calm(spec: Autoscaling, metrics: Metrics, fleet: Fleet, state: State) -> State:
    """A learned capacity rises when pods are seen to carry more, or when latency says that fewer pods would do.

    Latency is taken to grow with the load of a pod. Only as far as the next scale-in needs it: it is then seen.
    """
    learned, offered, completed = state.learned_qps, metrics.offered, metrics.completed
    if not learned or not offered or not completed or metrics.refused or metrics.p99 is None:
        return state
    calm = CALM_SHARE * spec.p99_milliseconds / 1000
    if metrics.p99 > calm or fleet.ready < fleet.committed:
        return state
    seen = completed / fleet.ready
    after_scale_in = offered / (fleet.committed - 1) / KEEP_SHARE if fleet.committed > 1 else math.inf
    possible = seen * calm / metrics.p99
    risen = max(seen, after_scale_in if after_scale_in <= possible else 0.0)
    return replace(state, learned_qps=risen) if risen > learned else state


def needed(spec: Autoscaling, metrics: Metrics, fleet: Fleet, state: State) -> int:
    """Fewest replicas that keep a margin. Without a known capacity, latency is taken to grow with load per pod."""
    offered = present(metrics)
    capacity = capacity_of(spec, state)
    if capacity is not None:
        return math.ceil(offered / (KEEP_SHARE * capacity.qps) - 1e-9)
    if offered == 0 or metrics.p99 is None:
        return 0
    calm = CALM_SHARE * spec.p99_milliseconds / 1000
    return math.ceil(fleet.ready * metrics.p99 / calm - 1e-9)
