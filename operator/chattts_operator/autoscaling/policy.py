"""How many replicas: decide(spec, signals, state, now), pure. Knows neither Kubernetes nor Prometheus nor a clock.

Order: gates (hold when we may not or cannot know) -> demand (feed-forward of QPS) -> SLO step -> up, down or stay.
Unknown never scales; replicas are removed only on full and fresh evidence; every outcome carries a reason.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace

from ..spec import Autoscaling
from . import cold_start
from .capacity import CALM_SHARE, KEEP_SHARE, capacity_of, learned_from_calm, needed
from .demand import Demand, feed_forward, with_jump
from .load import present
from .schedules import floor_at
from .signals import Change, Decision, Fleet, Metrics, Signals, State
from .step import REPEAT_SECONDS, is_late, is_settled, is_slow_alone, is_undone, lateness, slo_step

STALE_SECONDS = 60.0
REPORTING_SHARE = 0.8  # of the pods that are Ready for a minute
ALWAYS_ALLOWED_STEP = 4
PROBE_SECONDS = 300.0  # after pods could not be placed: one at a time
HISTORY = 10


def decide(spec: Autoscaling, signals: Signals, state: State, now: float) -> Decision:
    metrics, fleet = _finite(signals.metrics), signals.fleet
    state = _remembered(fleet, state, now)
    held = _gate(spec, metrics, fleet, state, now)
    if held is not None:
        return replace(held, metrics=metrics)
    state = with_jump(metrics, replace(state, missing_since=None), now)
    step, state = slo_step(spec, metrics, fleet, state, now)
    if not metrics.breach and is_settled(spec, fleet, state, now):
        state = learned_from_calm(spec, metrics, fleet, state)
    demand = feed_forward(spec, metrics, capacity_of(spec, state), state, now)
    if 0 < step.replicas < demand.replicas:  # the breach has just taught what one replica carries
        step = replace(step, replicas=demand.replicas, message=f"{step.message}; {demand.message}")
    wanted = max((step, demand, _scheduled(spec, now), _floor(spec, state, now)), key=lambda item: item.replicas)
    target = spec.clamp(wanted.replicas)
    kept = max(target, min(fleet.committed, needed(spec, metrics, fleet, state)))
    state = replace(state, window=state.window.add(now, kept, spec.stabilization_seconds))
    if target > fleet.committed:
        decision = _up(spec, target, wanted, fleet, state, now)
    elif target < fleet.committed:
        decision = _down(spec, metrics, fleet, state, now)
    else:
        decision = _stay(spec, wanted, fleet, state)
    if decision.desired == fleet.committed and not decision.limited and is_late(metrics):
        decision = replace(decision, reason="OverTarget", message=lateness(spec, metrics, fleet, state, now))
    if decision.limited == "" and decision.reason == "OverTarget" and is_slow_alone(metrics, fleet):
        decision = replace(decision, reason="ComputeBound")  # ScalingEffective says it: no limit was met
    return replace(_recorded(decision, now), metrics=metrics)


def _finite(metrics: Metrics) -> Metrics:
    """NaN, infinite and negative numbers are unknown."""
    broken = {
        item.name: None
        for item in fields(metrics)
        if isinstance(value := getattr(metrics, item.name), (int, float)) and not (math.isfinite(value) and value >= 0)
    }
    return replace(metrics, **broken)


def _remembered(fleet: Fleet, state: State, now: float) -> State:
    state = cold_start.learned(state, fleet)
    return replace(state, unschedulable_time=now) if fleet.unschedulable else state


# --- gates ---


def _gate(spec: Autoscaling, metrics: Metrics, fleet: Fleet, state: State, now: float) -> Decision | None:
    bounded = spec.clamp(fleet.committed)
    if bounded != fleet.committed:
        limits = f"{spec.min_replicas} to {spec.max_replicas}"
        return _recorded(_decision(fleet, bounded, "OutOfBounds", f"replicas must be {limits}", state), now)
    if spec.hold_until is not None and now < spec.hold_until.timestamp():
        return _decision(fleet, bounded, "Held", f"held until {spec.hold_until.isoformat()} by {spec.hold_by}", state)
    why = "no pod is Ready" if fleet.ready == 0 else _missing(metrics, fleet)
    scheduled = _scheduled(spec, now)
    if why is not None and scheduled.replicas > fleet.committed and not fleet.unschedulable:
        desired = spec.clamp(scheduled.replicas)
        return _recorded(_decision(fleet, desired, "Schedule", f"{scheduled.message} ({why})", state), now)
    if fleet.ready == 0:
        return _without_pods(fleet, state)
    return None if why is None else _blind(spec, fleet, why, state, now)


def _without_pods(fleet: Fleet, state: State) -> Decision:
    if fleet.unschedulable:
        message = "no pod is Ready and the scheduler cannot place them"
        return _decision(fleet, fleet.committed, "Unschedulable", message, state, limited="Unschedulable")
    return _decision(fleet, fleet.committed, "WaitingForPods", "no pod is Ready, so there is nothing to measure", state)


def _missing(metrics: Metrics, fleet: Fleet) -> str | None:
    if metrics.age is None or metrics.offered is None or metrics.reporting is None:
        return "no series for this service: does your Prometheus select this PodMonitor (labels)?"
    if metrics.age > STALE_SECONDS:
        return f"the newest sample is {metrics.age:.0f} s old"
    if metrics.reporting < REPORTING_SHARE * fleet.ready_a_minute:
        return f"{metrics.reporting} of {fleet.ready_a_minute} pods report"
    return None


def _blind(spec: Autoscaling, fleet: Fleet, why: str, state: State, now: float) -> Decision:
    """Never down. Up only to what the user named for this case. Evidence from before does not count afterwards."""
    since = now if state.missing_since is None else state.missing_since
    state = replace(state, missing_since=since, window=replace(state.window, entries=()))
    floor = spec.fallback_replicas
    waited = now - since >= spec.fallback_after_seconds
    if floor is not None and waited and spec.clamp(floor) > fleet.committed and not fleet.unschedulable:
        message = f"metrics are missing for {now - since:.0f} s ({why})"
        return _recorded(_decision(fleet, spec.clamp(floor), "Fallback", message, state), now)
    return _decision(fleet, fleet.committed, "MetricsMissing", why, state)


# --- what is wanted ---


def _scheduled(spec: Autoscaling, now: float) -> Demand:
    floor = floor_at(spec.schedules, now)
    if floor is None:
        return Demand(0, "Schedule", "")
    return Demand(floor.replicas, "Schedule", f"schedule {floor.name}: {floor.replicas} until {floor.until:%H:%M %Z}")


def _floor(spec: Autoscaling, state: State, now: float) -> Demand:
    """Without a known capacity the last breach is all that speaks against scaling in again."""
    holds = capacity_of(spec, state) is None and now - state.floor_time < 2 * spec.stabilization_seconds
    return Demand(state.floor if holds else 0, "BreachFloor", "kept since the last breach")


# --- up, down, stay ---


def _up(spec: Autoscaling, target: int, wanted: Demand, fleet: Fleet, state: State, now: float) -> Decision:
    if fleet.unschedulable:
        message = f"{wanted.message}; {target} wanted, but {fleet.unschedulable} pods cannot be placed"
        return _decision(fleet, fleet.committed, "Unschedulable", message, state, limited="Unschedulable")
    allowed = fleet.committed + max(math.ceil(fleet.committed * spec.up_percent / 100), ALWAYS_ALLOWED_STEP)
    if now - state.unschedulable_time < PROBE_SECONDS and target > fleet.committed + 1:
        if fleet.pending:
            message = f"{wanted.message}; {target} wanted, one at a time: pods could not be placed a short while ago"
            return _decision(fleet, fleet.committed, "Probing", message, state, limited="Probing")
        return _decision(fleet, fleet.committed + 1, wanted.reason, wanted.message, state, limited="Probing")
    limited = "StepLimit" if target > allowed else _at_bound(spec, wanted)
    return _decision(fleet, min(target, allowed), wanted.reason, wanted.message, state, limited)


def _down(spec: Autoscaling, metrics: Metrics, fleet: Fleet, state: State, now: float) -> Decision:
    """All must agree: a full window, no rollout, calm latency, and pods that can carry what is asked for."""
    refusal = _why_not_down(spec, metrics, fleet, state, now)
    if refusal is not None:
        reason, message = refusal
        return _decision(fleet, fleet.committed, reason, message, state)
    step = max(1, math.floor(fleet.committed * spec.down_percent / 100))
    desired = max(state.window.maximum(), fleet.committed - step)
    message = f"{metrics.offered or 0:.2g} rps; fewer were enough for {spec.stabilization_seconds} s"
    return _decision(fleet, desired, "ScaleIn", message, state)


def _why_not_down(
    spec: Autoscaling, metrics: Metrics, fleet: Fleet, state: State, now: float
) -> tuple[str, str] | None:
    seconds = spec.stabilization_seconds
    if fleet.rolling_out:
        return "RolloutInProgress", "no scale-in during a rollout"
    least = needed(spec, metrics, fleet, state)
    if least >= fleet.committed:
        return "LoadNeedsReplicas", _load_message(spec, metrics, state, least)
    if not state.window.covers(now, seconds) or state.window.maximum() >= fleet.committed:
        return "ScaleDownStabilized", f"fewer must be enough for {seconds} s"
    if now - state.last_scale_time < spec.period_seconds and not is_undone(fleet, state, now):
        return "ScaleDownStabilized", f"one step per {spec.period_seconds} s"
    if metrics.offered == 0:
        return None
    if metrics.breach or metrics.p99 is None or metrics.breach is None:
        return "LatencyNotCalm", "requests come in and their latency is unknown or over the target"
    if metrics.p99 > CALM_SHARE * spec.p99_milliseconds / 1000:
        return "LatencyNotCalm", f"p99 is above {CALM_SHARE:.0%} of the target"
    return None


def _load_message(spec: Autoscaling, metrics: Metrics, state: State, least: int) -> str:
    capacity = capacity_of(spec, state)
    if capacity is None:
        return f"p99 {metrics.p99 or 0:.2g} s: with fewer it is expected over {CALM_SHARE:.0%} of the target"
    return f"{present(metrics):.2g} rps need {least}, at {KEEP_SHARE:.0%} of {capacity}"


def _stay(spec: Autoscaling, wanted: Demand, fleet: Fleet, state: State) -> Decision:
    limited = _at_bound(spec, wanted)
    if limited == "AtMaxReplicas":
        message = f"{wanted.message}; {wanted.replicas} wanted, {spec.max_replicas} allowed"
        return _decision(fleet, fleet.committed, "AtMaxReplicas", message, state, limited)
    return _decision(fleet, fleet.committed, "WithinTarget", wanted.message, state)


def _at_bound(spec: Autoscaling, wanted: Demand) -> str:
    return "AtMaxReplicas" if wanted.replicas > spec.max_replicas else ""


def _decision(fleet: Fleet, desired: int, reason: str, message: str, state: State, limited: str = "") -> Decision:
    return Decision(fleet.committed, desired, reason, message, state, limited=limited)


def _recorded(decision: Decision, now: float) -> Decision:
    """A change goes into the history; one that was not carried out and is decided again takes its old place."""
    if decision.desired == decision.committed:
        return decision
    change = Change(now, decision.committed, decision.desired, decision.reason, decision.message)
    older = decision.state.history
    if older and (older[0].before, older[0].after) == (change.before, change.after):
        if now - older[0].time <= REPEAT_SECONDS:
            change = older[0]
        older = older[1:]
    history = (change, *older)[:HISTORY]
    state = replace(decision.state, last_scale_time=change.time, last_change=change, history=history)
    return replace(decision, reason=change.reason, message=change.message, state=state)
