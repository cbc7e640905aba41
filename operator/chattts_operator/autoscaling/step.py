"""The step because of latency: when it is due, how large it is, and whether the last one helped. Pure."""

from __future__ import annotations

import math
from dataclasses import replace

from ..spec import Autoscaling
from .capacity import is_compute_bound, learned_from_breach
from .demand import Demand
from .rules import BAD_SHARE
from .signals import Fleet, Metrics, State

EVIDENCE_LAG_SECONDS = 30.0  # a scrape (at most 15 s) and a rule interval (15 s)
STEP_SHARE = 0.5  # of the ready pods: the greatest step
MAX_BACK_OFF = 4  # doublings of the hold
REPEAT_SECONDS = 300.0  # for which a change that was not carried out is decided again as the same one


def slo_step(spec: Autoscaling, metrics: Metrics, fleet: Fleet, state: State, now: float) -> tuple[Demand, State]:
    if not metrics.breach or not is_settled(spec, fleet, state, now) or is_compute_bound(metrics, fleet):
        return Demand(0, "WithinTarget", ""), state
    target = spec.p99_milliseconds / 1000
    excess = 0.0 if metrics.p99 is None else min(STEP_SHARE, max(0.0, metrics.p99 / target - 1))
    step = max(1, math.ceil(fleet.ready * excess))
    p99 = "unknown" if metrics.p99 is None else f"{metrics.p99:.2g} s"
    message = (
        f"p99 {p99} (target {target:g} s), {metrics.refused or 0:.2g} rps refused of {metrics.offered or 0:.2g} rps, "
        f"for {spec.sustained_seconds} s with {fleet.ready} ready"
    )
    wanted = fleet.committed + step
    return Demand(wanted, "SLOBreach", message), _after(spec, metrics, fleet, state, wanted, now)


def is_slow_alone(metrics: Metrics, fleet: Fleet) -> bool:
    """The promise is broken, and not for want of pods."""
    return bool(metrics.breach) and not fleet.pending and not fleet.rolling_out and is_compute_bound(metrics, fleet)


def is_late(metrics: Metrics) -> bool:
    return metrics.bad_ratio is not None and metrics.bad_ratio > BAD_SHARE


def lateness(spec: Autoscaling, metrics: Metrics, fleet: Fleet, state: State, now: float) -> str:
    """Why nothing is done about requests that are late or refused at this moment."""
    if not metrics.breach:
        why = f"a step follows when it lasts {spec.sustained_seconds} s"
    elif fleet.rolling_out:
        why = "a rollout is under way"
    elif fleet.unschedulable:
        why = f"{fleet.unschedulable} pods of the last step cannot be placed"
    elif fleet.pending:
        why = f"{fleet.pending} pods of the last step are on their way"
    elif is_compute_bound(metrics, fleet):
        why = f"{metrics.inflight or 0:.2g} requests in {fleet.ready} pods: each is slow alone, more pods would be too"
    else:
        why = f"the last step has {max(0.0, shown_from(spec, fleet, state) - now):.0f} s more to show its effect"
    return f"{metrics.bad_ratio or 0.0:.0%} late or refused (target {spec.p99_milliseconds / 1000:g} s): {why}"


def is_settled(spec: Autoscaling, fleet: Fleet, state: State, now: float) -> bool:
    """One cause, one step: the pods of the last one must be Ready and have had time to show."""
    moving = fleet.pending or fleet.unschedulable or fleet.rolling_out
    if _is_undone_step(fleet, state, now):
        return not moving
    return not moving and now >= shown_from(spec, fleet, state)


def is_undone(fleet: Fleet, state: State, now: float) -> bool:
    """The last change has not reached the Deployment: the API server refused it, or was away."""
    change = state.last_change
    return change is not None and change.before == fleet.committed and now - change.time <= REPEAT_SECONDS


def _is_undone_step(fleet: Fleet, state: State, now: float) -> bool:
    change = state.last_change
    return is_undone(fleet, state, now) and change is not None and change.reason == "SLOBreach"


def shown_from(spec: Autoscaling, fleet: Fleet, state: State) -> float:
    """When what Prometheus says is about the pods that are Ready now: it is late by a scrape and a rule interval."""
    ready = 0.0 if fleet.last_ready_at is None else fleet.last_ready_at + spec.settle_seconds + EVIDENCE_LAG_SECONDS
    return max(state.hold_until, ready)


def _after(spec: Autoscaling, metrics: Metrics, fleet: Fleet, state: State, wanted: int, now: float) -> State:
    if _is_undone_step(fleet, state, now):  # it had no chance to help: decided again, and not held against the next
        return state
    helped = _helped(metrics, state)
    doublings = 0 if helped else min(MAX_BACK_OFF, state.ineffective_steps + 1)
    state = learned_from_breach(metrics, fleet, state)
    return replace(
        state,
        hold_until=now + spec.settle_seconds * 2**doublings,
        ineffective_steps=doublings,
        p99_at_last_step=metrics.p99,
        refused_at_last_step=_refused_share(metrics),
        completed_at_last_step=metrics.completed,
        floor=spec.clamp(wanted),
        floor_time=now,
    )


def _refused_share(metrics: Metrics) -> float | None:
    if metrics.refused is None or not metrics.offered:
        return None
    return metrics.refused / metrics.offered


def _helped(metrics: Metrics, state: State) -> bool:
    """Half of the proportional effect in any of p99, refused share, completions. Without a last step: yes.

    While anything is refused there is no back-off: a bounded queue pins p99, so no single step lowers it.
    """
    change = state.last_change
    if change is None or change.reason != "SLOBreach" or change.after <= change.before or metrics.refused:
        return True
    effect = (1 - change.before / change.after) / 2
    fell = [
        (metrics.p99, state.p99_at_last_step),
        (_refused_share(metrics), state.refused_at_last_step),
    ]
    if any(now is not None and then and now <= then * (1 - effect) for now, then in fell):
        return True
    grown = (change.after / change.before - 1) / 2 if change.before else 1.0
    now_done, then_done = metrics.completed, state.completed_at_last_step
    return bool(now_done is not None and then_done and now_done >= then_done * (1 + grown))
