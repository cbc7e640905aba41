"""How many replicas: decide(spec, signals, state, now), pure. Knows neither Kubernetes nor Prometheus nor a clock.

Order: gates (hold when we may not or cannot know) -> demand (feed-forward of QPS) -> SLO step -> up, down or stay.
Unknown never scales; replicas are removed only on full and fresh evidence; every outcome carries a reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from ..spec import Autoscaling
from .rules import BAD_SHARE
from .signals import Change, Decision, Fleet, Metrics, Signals, State

COLD_START_SECONDS = 90.0  # until one was seen
COLD_START_RANGE = (30.0, 600.0)
STALE_SECONDS = 60.0
EVIDENCE_LAG_SECONDS = 30.0  # a scrape (at most 15 s) and a rule interval (15 s)
REPORTING_SHARE = 0.8  # of the pods that are Ready for a minute
CALM_SHARE = 0.8  # of the target: p99 above it forbids scale-in
KEEP_SHARE = 0.9  # of the capacity that the remaining pods may be loaded with after a scale-in
LEARNED_SHARE = 0.75  # a capacity learned in a breach is the capacity at the limit, not within the promise
STEP_SHARE = 0.5  # of the ready pods: the greatest SLO step
MAX_BACK_OFF = 4  # doublings of the hold
ALWAYS_ALLOWED_STEP = 4
HISTORY = 10
REPEAT_SECONDS = 300.0  # for which a change that was not carried out is decided again as the same one


@dataclass(frozen=True, slots=True)
class _Demand:
    replicas: int
    reason: str
    message: str


def decide(spec: Autoscaling, signals: Signals, state: State, now: float) -> Decision:
    metrics, fleet = _finite(signals.metrics), signals.fleet
    state = _with_cold_start(state, fleet)
    held = _gate(spec, metrics, fleet, state, now)
    if held is not None:
        return replace(held, metrics=metrics)
    state = replace(state, missing_since=None)
    demand = _feed_forward(spec, metrics, state)
    step, state = _slo_step(spec, metrics, fleet, state, now)
    wanted = max((demand, step, _floor(spec, state, now)), key=lambda item: item.replicas)
    target = spec.clamp(wanted.replicas)
    state = replace(state, window=state.window.add(now, target, spec.stabilization_seconds))
    if target > fleet.committed:
        decision = _up(spec, target, wanted, fleet, state)
    elif target < fleet.committed:
        decision = _down(spec, metrics, fleet, state, now)
    else:
        decision = _stay(spec, wanted, fleet, state)
    if decision.desired == fleet.committed and not decision.limited and _is_late(metrics):
        decision = replace(decision, reason="OverTarget", message=_lateness(spec, metrics, fleet, state, now))
    return replace(_recorded(decision, now), metrics=metrics)


def _finite(metrics: Metrics) -> Metrics:
    """NaN, infinite and negative numbers are unknown."""
    broken = {
        item.name: None
        for item in fields(metrics)
        if isinstance(value := getattr(metrics, item.name), (int, float)) and not (math.isfinite(value) and value >= 0)
    }
    return replace(metrics, **broken)


def _with_cold_start(state: State, fleet: Fleet) -> State:
    """Moving average over pods, each counted once."""
    if fleet.cold_start is None or fleet.cold_start[0] == state.cold_start_pod:
        return state
    pod, seconds = fleet.cold_start
    old = state.cold_start_seconds
    mean = seconds if old is None else 0.7 * old + 0.3 * seconds
    return replace(state, cold_start_pod=pod, cold_start_seconds=mean)


# --- gates ---


def _gate(spec: Autoscaling, metrics: Metrics, fleet: Fleet, state: State, now: float) -> Decision | None:
    bounded = spec.clamp(fleet.committed)
    if bounded != fleet.committed:
        limits = f"{spec.min_replicas} to {spec.max_replicas}"
        return _recorded(_decision(fleet, bounded, "OutOfBounds", f"replicas must be {limits}", state), now)
    if spec.hold_until is not None and now < spec.hold_until.timestamp():
        return _decision(fleet, bounded, "Held", f"held until {spec.hold_until.isoformat()} by {spec.hold_by}", state)
    if fleet.ready == 0:
        return _without_pods(fleet, state)
    why = _missing(metrics, fleet)
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


def _capacity(spec: Autoscaling, state: State) -> float | None:
    return spec.qps_per_replica if spec.qps_per_replica is not None else state.learned_qps


def _feed_forward(spec: Autoscaling, metrics: Metrics, state: State) -> _Demand:
    """Replicas for the load expected when a pod that starts now is Ready."""
    capacity, offered = _capacity(spec, state), metrics.offered or 0.0
    wanted, message = 0, f"{offered:.2g} rps"
    if capacity:
        expected = _expected_load(metrics, state)
        wanted = math.ceil(expected / capacity - 1e-9)
        message = f"{offered:.2g} rps, {expected:.2g} rps expected, {capacity:.2g} rps per replica"
    if spec.concurrency_per_replica and metrics.inflight is not None:
        busy = math.ceil(metrics.inflight / spec.concurrency_per_replica - 1e-9)
        if busy > wanted:
            wanted, message = (
                busy,
                f"{metrics.inflight:.2g} requests in flight, {spec.concurrency_per_replica} per replica",
            )
    return _Demand(wanted, "QPS", message)


def _expected_load(metrics: Metrics, state: State) -> float:
    now, before = metrics.offered or 0.0, metrics.offered_5m
    low, high = COLD_START_RANGE
    cold_start = min(high, max(low, state.cold_start_seconds or COLD_START_SECONDS))
    growth = (
        0.0 if before is None else max(0.0, (now - before) / 120)
    )  # per second: the windows' middles lie 120 s apart
    return min(1.5 * now, now + growth * cold_start)


def _slo_step(spec: Autoscaling, metrics: Metrics, fleet: Fleet, state: State, now: float) -> tuple[_Demand, State]:
    if not metrics.breach or not _settled(spec, fleet, state, now):
        return _Demand(0, "WithinTarget", ""), state
    target = spec.p99_milliseconds / 1000
    excess = 0.0 if metrics.p99 is None else min(STEP_SHARE, max(0.0, metrics.p99 / target - 1))
    step = max(1, math.ceil(fleet.ready * excess))
    p99 = "unknown" if metrics.p99 is None else f"{metrics.p99:.2g} s"
    message = (
        f"p99 {p99} (target {target:g} s), {metrics.refused or 0:.2g} rps refused of {metrics.offered or 0:.2g} rps, "
        f"for {spec.sustained_seconds} s with {fleet.ready} ready"
    )
    wanted = fleet.committed + step
    return _Demand(wanted, "SLOBreach", message), _after_step(spec, metrics, fleet, state, wanted, now)


def _is_late(metrics: Metrics) -> bool:
    return metrics.bad_ratio is not None and metrics.bad_ratio > BAD_SHARE


def _lateness(spec: Autoscaling, metrics: Metrics, fleet: Fleet, state: State, now: float) -> str:
    """Why nothing is done about requests that are late or refused at this moment."""
    if not metrics.breach:
        why = f"a step follows when it lasts {spec.sustained_seconds} s"
    elif fleet.rolling_out:
        why = "a rollout is under way"
    elif fleet.pending:
        why = f"{fleet.pending} pods of the last step are on their way"
    else:
        why = f"the last step has {max(0.0, _shown_from(spec, fleet, state) - now):.0f} s more to show its effect"
    return f"{metrics.bad_ratio or 0.0:.0%} late or refused (target {spec.p99_milliseconds / 1000:g} s): {why}"


def _settled(spec: Autoscaling, fleet: Fleet, state: State, now: float) -> bool:
    """One cause, one step: the pods of the last one must be Ready and have had time to show."""
    moving = fleet.pending or fleet.unschedulable or fleet.rolling_out
    if _is_undone_step(fleet, state, now):
        return not moving
    return not moving and now >= _shown_from(spec, fleet, state)


def _is_undone(fleet: Fleet, state: State, now: float) -> bool:
    """The last change has not reached the Deployment: the API server refused it, or was away."""
    change = state.last_change
    return change is not None and change.before == fleet.committed and now - change.time <= REPEAT_SECONDS


def _is_undone_step(fleet: Fleet, state: State, now: float) -> bool:
    change = state.last_change
    return _is_undone(fleet, state, now) and change is not None and change.reason == "SLOBreach"


def _shown_from(spec: Autoscaling, fleet: Fleet, state: State) -> float:
    """When what Prometheus says is about the pods that are Ready now: it is late by a scrape and a rule interval."""
    ready = 0.0 if fleet.last_ready_at is None else fleet.last_ready_at + spec.settle_seconds + EVIDENCE_LAG_SECONDS
    return max(state.hold_until, ready)


def _after_step(spec: Autoscaling, metrics: Metrics, fleet: Fleet, state: State, wanted: int, now: float) -> State:
    if _is_undone_step(fleet, state, now):  # it had no chance to help: decided again, and not held against the next
        return replace(state, hold_until=now + spec.settle_seconds * 2**state.ineffective_steps)
    helped = _helped(metrics, state)
    doublings = 0 if helped else min(MAX_BACK_OFF, state.ineffective_steps + 1)
    learned = state.learned_qps
    if metrics.completed:
        learned = metrics.completed / fleet.ready
    return replace(
        state,
        learned_qps=learned,
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


def _floor(spec: Autoscaling, state: State, now: float) -> _Demand:
    """Without a known capacity the last breach is all that speaks against scaling in again."""
    holds = _capacity(spec, state) is None and now - state.floor_time < 2 * spec.stabilization_seconds
    return _Demand(state.floor if holds else 0, "BreachFloor", "kept since the last breach")


# --- up, down, stay ---


def _up(spec: Autoscaling, target: int, wanted: _Demand, fleet: Fleet, state: State) -> Decision:
    if fleet.unschedulable:
        message = f"{wanted.message}; {target} wanted, but {fleet.unschedulable} pods cannot be placed"
        return _decision(fleet, fleet.committed, "Unschedulable", message, state, limited="Unschedulable")
    allowed = fleet.committed + max(math.ceil(fleet.committed * spec.up_percent / 100), ALWAYS_ALLOWED_STEP)
    limited = "StepLimit" if target > allowed else _at_bound(spec, wanted)
    return _decision(fleet, min(target, allowed), wanted.reason, wanted.message, state, limited)


def _down(spec: Autoscaling, metrics: Metrics, fleet: Fleet, state: State, now: float) -> Decision:
    """All must agree: a full window, no rollout, calm latency, and pods that can carry what is asked for."""
    refusal = _why_not_down(spec, metrics, fleet, state, now)
    if refusal is not None:
        reason, message = refusal
        return _decision(fleet, fleet.committed, reason, message, state)
    step = max(1, math.floor(fleet.committed * spec.down_percent / 100))
    desired = max(state.window.maximum(), fleet.committed - step, _needed_by_load(spec, metrics, fleet, state))
    message = f"{metrics.offered or 0:.2g} rps; fewer were enough for {spec.stabilization_seconds} s"
    if desired >= fleet.committed:
        return _decision(fleet, fleet.committed, "LoadNeedsReplicas", message, state)
    return _decision(fleet, desired, "ScaleIn", message, state)


def _why_not_down(
    spec: Autoscaling, metrics: Metrics, fleet: Fleet, state: State, now: float
) -> tuple[str, str] | None:
    seconds = spec.stabilization_seconds
    if fleet.rolling_out:
        return "RolloutInProgress", "no scale-in during a rollout"
    if not state.window.covers(now, seconds) or state.window.maximum() >= fleet.committed:
        return "ScaleDownStabilized", f"fewer must be enough for {seconds} s"
    if now - state.last_scale_time < spec.period_seconds and not _is_undone(fleet, state, now):
        return "ScaleDownStabilized", f"one step per {spec.period_seconds} s"
    if metrics.offered == 0:
        return None
    if metrics.breach or metrics.p99 is None or metrics.breach is None:
        return "LatencyNotCalm", "requests come in and their latency is unknown or over the target"
    if metrics.p99 > CALM_SHARE * spec.p99_milliseconds / 1000:
        return "LatencyNotCalm", f"p99 is above {CALM_SHARE:.0%} of the target"
    return None


def _needed_by_load(spec: Autoscaling, metrics: Metrics, fleet: Fleet, state: State) -> int:
    """Fewest replicas that keep a margin. Without a known capacity, latency is taken to grow with load per pod."""
    offered = metrics.offered or 0.0
    if spec.qps_per_replica is not None:
        return math.ceil(offered / (KEEP_SHARE * spec.qps_per_replica) - 1e-9)
    if state.learned_qps:
        return math.ceil(offered / (KEEP_SHARE * LEARNED_SHARE * state.learned_qps) - 1e-9)
    if offered == 0 or metrics.p99 is None:
        return 0
    calm = CALM_SHARE * spec.p99_milliseconds / 1000
    return math.ceil(fleet.ready * metrics.p99 / calm - 1e-9)


def _stay(spec: Autoscaling, wanted: _Demand, fleet: Fleet, state: State) -> Decision:
    limited = _at_bound(spec, wanted)
    if limited == "AtMaxReplicas":
        message = f"{wanted.message}; {wanted.replicas} wanted, {spec.max_replicas} allowed"
        return _decision(fleet, fleet.committed, "AtMaxReplicas", message, state, limited)
    return _decision(fleet, fleet.committed, "WithinTarget", wanted.message, state)


def _at_bound(spec: Autoscaling, wanted: _Demand) -> str:
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
    state = replace(decision.state, last_scale_time=now, last_change=change, history=history)
    return replace(decision, reason=change.reason, message=change.message, state=state)
