"""`chattts-operator explain`: a TTSService's status in words: what was decided, why, what would change it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .. import api
from ..spec import Autoscaling, TTSServiceSpec
from . import rules
from .capacity import CALM_SHARE, capacity_of
from .memory import state_of
from .rules import Promise
from .signals import Change, State

# What every reason means, and what would change the decision.
REASONS: Mapping[str, tuple[str, str]] = {
    "WithinTarget": ("Everything is within the promise.", "{up}"),
    "OverTarget": ("Requests are late or refused at this moment, and it is not yet time to act.", "{up}"),
    "ComputeBound": (
        "Requests are late though each is alone in its pod: more pods would be as slow, so none is added.",
        "Faster pods, shorter texts or a higher targets.p99Milliseconds, or load that makes requests wait.",
    ),
    "SLOBreach": (
        "The promise was broken without a gap for {sustained} s, so replicas were added.",
        "The next step waits until the new pods are Ready and have had {settle} s to show their effect.",
    ),
    "QPS": (
        "The load, now or when a new pod would be Ready, needs more replicas.",
        "Less load, for {stabilization} s.",
    ),
    "ScaleIn": ("Fewer replicas were enough for {stabilization} s.", "{up}"),
    "ScaleDownStabilized": ("Fewer replicas seem enough; it waits to be sure.", "{down}"),
    "LatencyNotCalm": ("Fewer replicas would carry the load, but latency is near the promise.", "{down}"),
    "LoadNeedsReplicas": ("One replica fewer could not carry the load with a margin.", "{down}"),
    "BreachFloor": ("Replicas of the last breach are kept for a while.", "{down}"),
    "RolloutInProgress": ("Pods are being replaced: nothing is removed meanwhile.", "The end of the rollout."),
    "Schedule": (
        "A schedule asks for this many replicas.",
        "The end of its time, then {stabilization} s of less need.",
    ),
    "Held": ("A person holds the number.", "The end of the hold, or removing autoscaling.hold."),
    "OutOfBounds": ("The number was brought between minReplicas and maxReplicas.", "Other bounds."),
    "AtMaxReplicas": ("More is wanted than maxReplicas allows.", "A higher autoscaling.maxReplicas, or less load."),
    "Unschedulable": (
        "The cluster has no place for the pods that are asked for already.",
        "Free GPUs, or a lower number of replicas elsewhere (scheduling.priorityClassName says who goes first).",
    ),
    "Probing": (
        "Pods could not be placed a short while ago, so they are asked for one at a time.",
        "The pod that is on its way; five minutes without a pod that cannot be placed.",
    ),
    "WaitingForPods": ("No pod is Ready, so there is nothing to measure.", "A pod that becomes Ready."),
    "MetricsMissing": (
        "Prometheus does not say enough, so the number is held: nothing is ever removed on missing data.",
        "Metrics of at least four of five Ready pods, not older than a minute.",
    ),
    "Fallback": ("Metrics are missing for long, so autoscaling.fallback.replicas was used.", "Metrics again."),
}
UP = "More replicas: more than {bad:.0%} late (over {target:g} s) or refused for {sustained} s{or_load}."
DOWN = (
    "Fewer replicas: for {stabilization} s fewer must be enough, p99 at most {calm:.2g} s, "
    "and the remaining pods at most 90 % loaded; then at most {percent} % each {period} s."
)


def explain(spec: TTSServiceSpec, body: Mapping[str, Any], now: float) -> str:
    status = body.get("status") or {}
    scaling = status.get("autoscaling") or {}
    return "\n".join(_lines(spec, status, scaling, now)) + "\n"


def _lines(spec: TTSServiceSpec, status: Mapping[str, Any], scaling: Mapping[str, Any], now: float) -> Iterator[str]:
    desired, ready = status.get("desiredReplicas"), status.get("readyReplicas", 0)
    limits = f"between {spec.autoscaling.min_replicas} and {spec.autoscaling.max_replicas}"
    yield f"{spec.key}: {desired if desired is not None else 'unknown'} replicas wanted, {ready} Ready, {limits}."
    if spec.paused or spec.autoscaling.mode != api.MODE_OPERATOR:
        yield _not_ours(spec)
        return
    state, reason = state_of(scaling), str(scaling.get("reason") or "")
    yield f"p99 {scaling.get('p99', 'unknown')}, {scaling.get('qps', 'unknown')} requests/s asked for."
    yield ""
    yield from _why(spec.autoscaling, state, reason, str(scaling.get("message") or ""))
    yield ""
    yield from _known(spec.autoscaling, state, now)
    yield ""
    yield from _history(state, now)
    yield ""
    yield from _queries(spec)


def _not_ours(spec: TTSServiceSpec) -> str:
    if spec.paused:
        return "Nothing is decided: spec.managementPolicy is Paused."
    return f"Nothing is decided here: autoscaling.mode is {spec.autoscaling.mode}."


def _why(spec: Autoscaling, state: State, reason: str, message: str) -> Iterator[str]:
    if not reason:
        yield "Nothing was decided yet."
        return
    values = _values(spec, state)
    why, change = REASONS.get(reason, ("This version does not know this reason.", "{up}"))
    yield f"Why ({reason}): {why.format(**values)}"
    if message:
        yield f"  {message}"
    yield "What would change it: " + change.format(up=UP.format(**values), down=DOWN.format(**values), **values)


def _values(spec: Autoscaling, state: State) -> dict[str, Any]:
    target, capacity = spec.p99_milliseconds / 1000, capacity_of(spec, state)
    return {
        "sustained": spec.sustained_seconds,
        "settle": spec.settle_seconds,
        "stabilization": spec.stabilization_seconds,
        "period": spec.period_seconds,
        "percent": spec.down_percent,
        "target": target,
        "calm": CALM_SHARE * target,
        "bad": rules.BAD_SHARE,
        "or_load": "" if capacity is None else f", or more than {capacity.qps:.2g} requests/s for each replica",
    }


def _known(spec: Autoscaling, state: State, now: float) -> Iterator[str]:
    capacity = capacity_of(spec, state)
    if capacity is None:
        yield "One replica carries: not known; the first breach teaches it (or set it: chattts-operator calibrate)."
    else:
        source = "learned from breaches and calm" if capacity.learned else "autoscaling.targets.qpsPerReplica"
        yield f"One replica carries: {capacity.qps:.2g} requests/s ({source})."
    if state.cold_start is None:
        yield "A new pod takes: not seen yet; 90 s are assumed."
    else:
        average = state.cold_start
        phases = {"placing": average.placing, "pulling": average.pulling, "starting": average.starting}
        told = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in phases.items() if seconds is not None)
        yield f"A new pod takes: {average.seconds:.0f} s from its place to Ready ({told})."
    if state.hold_until > now:
        yield f"No step because of latency for {state.hold_until - now:.0f} s more."
    if state.ineffective_steps:
        yield f"The last {state.ineffective_steps} steps because of latency did not help, so the next waits longer."


def _history(state: State, now: float) -> Iterator[str]:
    yield "Last changes:" if state.history else "Last changes: none."
    for change in state.history[:5]:
        yield f"  {_ago(now - change.time)} ago: {change.before} -> {change.after}, {_told(change)}"


def _told(change: Change) -> str:
    return f"{change.reason}: {change.message}" if change.message else change.reason


def _ago(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _queries(spec: TTSServiceSpec) -> Iterator[str]:
    promise, selector = Promise.of(spec.autoscaling), rules.selector_of(*spec.key)
    bound = rules.matchers(selector)
    yield "Look at it in Prometheus:"
    yield f"  p99:             {rules.P99}{bound}"
    yield f"  late or refused: {rules.BAD_RATIO}{bound}"
    yield f"  asked for:       {rules.OFFERED}{bound}"
    yield f"  the rule itself: {rules.BREACH}{bound}"
    yield f"  without rules:   {rules.bad_ratio(promise, selector)}"
