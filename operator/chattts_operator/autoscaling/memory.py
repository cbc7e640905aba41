"""State and decision of the autoscaler to and from status.autoscaling. Pure; writes nothing.

p99, QPS, reason and message change all the time: what is shown is rounded, and `shown` says when it may change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from .signals import Change, ColdStart, Decision, State

SHOW_SECONDS = 60.0  # between two writes of changed numbers
VOLATILE = ("p99", "qps", "reason", "message")
IGNORED_REPLICAS = "ignoredReplicas"  # spec.replicas while mode Operator does not read it
FIELDS = (  # of status.autoscaling that a decision fills
    *VOLATILE,
    "learnedQpsPerReplica",
    "learnedFor",
    "coldStartSeconds",
    "coldStart",
    "jumpTime",
    "holdUntil",
    "ineffectiveSteps",
    "p99AtLastStepMilliseconds",
    "refusedAtLastStep",
    "completedAtLastStep",
    "floorReplicas",
    "floorTime",
    "lastScaleTime",
    "lastScaleFrom",
    "lastScaleTo",
    "lastScaleReason",
    "history",
)
HOLDING = ("MetricsMissing", "Fallback", "WaitingForPods", "Unschedulable", "Held")  # reasons that a condition tells


def state_of(status: Mapping[str, Any]) -> State:
    """From status.autoscaling; anything unreadable counts as not there."""
    history = tuple(_change_of(item) for item in status.get("history") or [])
    p99 = _number(status.get("p99AtLastStepMilliseconds"))
    return State(
        learned_qps=_number(status.get("learnedQpsPerReplica")),
        learned_for=str(status.get("learnedFor") or ""),
        cold_start=_cold_start_of(status),
        cold_start_pod=str((status.get("coldStart") or {}).get("pod") or ""),
        jump_time=_seconds(status.get("jumpTime")),
        hold_until=_seconds(status.get("holdUntil")),
        ineffective_steps=_whole(status.get("ineffectiveSteps")),
        p99_at_last_step=None if p99 is None else p99 / 1000,
        refused_at_last_step=_number(status.get("refusedAtLastStep")),
        completed_at_last_step=_number(status.get("completedAtLastStep")),
        floor=_whole(status.get("floorReplicas")),
        floor_time=_seconds(status.get("floorTime")),
        last_scale_time=_seconds(status.get("lastScaleTime")),
        last_change=history[0] if history else None,
        history=history,
    )


def status_of(decision: Decision) -> dict[str, Any]:
    """The part of status.autoscaling that a decision fills."""
    state, metrics = decision.state, decision.metrics
    p99 = state.p99_at_last_step
    values = {
        "p99": None if metrics.p99 is None else f"{two_digits(metrics.p99)}s",
        "qps": None if metrics.offered is None else two_digits(metrics.offered),
        "reason": decision.reason,
        "message": decision.message,
        "learnedQpsPerReplica": None if state.learned_qps is None else f"{state.learned_qps:.3g}",
        "learnedFor": None if state.learned_qps is None else state.learned_for or None,
        **_cold_start(state),
        "jumpTime": _text(state.jump_time),
        "holdUntil": _text(state.hold_until),
        "ineffectiveSteps": state.ineffective_steps or None,
        "p99AtLastStepMilliseconds": None if p99 is None else round(p99 * 1000),
        "refusedAtLastStep": None if state.refused_at_last_step is None else f"{state.refused_at_last_step:.3g}",
        "completedAtLastStep": None if state.completed_at_last_step is None else f"{state.completed_at_last_step:.3g}",
        "floorReplicas": state.floor or None,
        "floorTime": _text(state.floor_time),
        "lastScaleTime": _text(state.last_scale_time),
        **_last(state.last_change),
        "history": [_item(change) for change in state.history] or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def shown(new: Mapping[str, Any], old: Mapping[str, Any], may_change: bool) -> dict[str, Any]:
    """The new values, but with the old volatile ones while it is too early to change them.

    Another reason is no number that trembles: it is shown at once, and with it what belongs to it.
    """
    if may_change or new.get("reason") != old.get("reason"):
        return dict(new)
    kept = {name: old[name] for name in VOLATILE if name in old}
    return {**{name: value for name, value in new.items() if name not in VOLATILE}, **kept}


def two_digits(value: float) -> str:
    """0.81, 18, 420: steady where the third digit trembles."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.2g}")
    return f"{rounded:g}" if rounded < 1e6 else f"{rounded:.0f}"


def _cold_start(state: State) -> dict[str, Any]:
    average = state.cold_start
    if average is None:
        return {}
    phases = {"starting": average.starting, "pulling": average.pulling, "placing": average.placing}
    seconds = {f"{name}Seconds": f"{value:.1f}" for name, value in phases.items() if value is not None}
    return {"coldStartSeconds": round(average.seconds), "coldStart": {**seconds, "pod": state.cold_start_pod}}


def _cold_start_of(status: Mapping[str, Any]) -> ColdStart | None:
    phases = status.get("coldStart") or {}
    starting = _number(phases.get("startingSeconds"))
    if starting is None:
        whole = _number(status.get("coldStartSeconds"))
        return None if whole is None else ColdStart(whole)
    return ColdStart(starting, _number(phases.get("pullingSeconds")), _number(phases.get("placingSeconds")))


def _last(change: Change | None) -> dict[str, Any]:
    if change is None:
        return {}
    return {"lastScaleFrom": change.before, "lastScaleTo": change.after, "lastScaleReason": change.reason}


def _item(change: Change) -> dict[str, Any]:
    return {
        "time": _text(change.time),
        "from": change.before,
        "to": change.after,
        "reason": change.reason,
        "message": change.message,
    }


def _change_of(item: Mapping[str, Any]) -> Change:
    return Change(
        time=_seconds(item.get("time")),
        before=_whole(item.get("from")),
        after=_whole(item.get("to")),
        reason=str(item.get("reason") or ""),
        message=str(item.get("message") or ""),
    )


def _number(value: Any) -> float | None:
    """NaN, infinite and negative are unknown too: a capacity of NaN would end in an error of every decision."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _whole(value: Any) -> int:
    return int(_number(value) or 0)


def _seconds(text: Any) -> float:
    try:
        return datetime.fromisoformat(text).timestamp() if text else 0.0
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _text(seconds: float) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else None
