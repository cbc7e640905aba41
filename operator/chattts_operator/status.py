"""The status of a TTSService, whole. Pure: now is an argument, and what has not changed keeps its old time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from . import api
from .autoscaling import memory
from .conditions import Condition, Outcome, conditions_of
from .observe import Observed
from .resources.service import url
from .spec import TTSServiceSpec

FIELDS = (
    "observedGeneration",
    "replicas",
    "readyReplicas",
    "desiredReplicas",
    "selector",
    "url",
    "image",
    "modelRevision",
    "reason",
)
SCALING = (api.SCALING_ACTIVE, api.SCALING_LIMITED, api.SCALING_EFFECTIVE)
NOT_OF_A_DECISION = ("InvalidSpec", "Paused", "NoPrometheus", "ModeNone", "NotManaged", "ReplicasHeld")


def build(spec: TTSServiceSpec | None, observed: Observed, outcome: Outcome, now: float) -> dict[str, Any]:
    """Everything we own in status; a field that is left out is removed."""
    old = ours(observed.service)
    deployment = observed.deployment or {}
    live = deployment.get("status") or {}
    before = old.get("conditions") or []
    conditions = [_kept(condition, spec, outcome, before) for condition in conditions_of(spec, observed, outcome)]
    autoscaling = _autoscaling(spec, old.get("autoscaling") or {}, outcome)
    name = observed.service["metadata"]["name"]
    values = {
        "observedGeneration": observed.service["metadata"].get("generation", 0),
        "replicas": int(live.get("replicas", 0)),
        "readyReplicas": int(live.get("readyReplicas", 0)),
        "desiredReplicas": old.get("desiredReplicas") if outcome.desired is None else outcome.desired,
        "selector": ",".join(f"{label}={value}" for label, value in api.selector_labels(name).items()),
        "url": old.get("url") if spec is None else url(spec),
        "image": outcome.image or old.get("image"),
        "modelRevision": old.get("modelRevision") if outcome.weights is None else outcome.weights.serve or None,
        "reason": _reason(conditions, autoscaling),
        "conditions": _with_times(conditions, before, observed.service, now),
        "autoscaling": autoscaling or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def ours(service: api.Body) -> dict[str, Any]:
    """What is in status and ours. What others have put there is neither compared nor taken over."""
    status = service.get("status") or {}
    autoscaling, known = status.get("autoscaling") or {}, ("mode", memory.IGNORED_REPLICAS, *memory.FIELDS)
    found = {
        **{name: status.get(name) for name in FIELDS},
        "conditions": [item for item in status.get("conditions") or [] if item["type"] in api.CONDITION_TYPES],
        "autoscaling": {name: value for name, value in autoscaling.items() if name in known},
    }
    return {name: value for name, value in found.items() if value not in (None, [], {})}


def _kept(
    condition: Condition, spec: TTSServiceSpec | None, outcome: Outcome, old: Iterable[Mapping[str, Any]]
) -> Condition:
    """Until there is a decision again, after a restart, what the last one said about scaling stays."""
    if spec is None or spec.paused or spec.autoscaling.mode != api.MODE_OPERATOR or outcome.decision is not None:
        return condition
    known = next((item for item in old if item["type"] == condition.type), None)
    if known is None or condition.type not in SCALING or known["reason"] in NOT_OF_A_DECISION:
        return condition
    status = {"True": True, "False": False}.get(known["status"])
    return Condition(condition.type, status, known["reason"], known["message"])


def _autoscaling(spec: TTSServiceSpec | None, old: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """What was remembered stays until there is a decision again: a restart must not forget."""
    if spec is None or outcome.problems:
        return dict(old)
    if spec.autoscaling.mode != api.MODE_OPERATOR:
        kept = {name: value for name, value in old.items() if name not in memory.VOLATILE}
        if outcome.held:
            return {**kept, "mode": api.MODE_OPERATOR}
        kept.pop(memory.IGNORED_REPLICAS, None)
        return {**kept, "mode": spec.autoscaling.mode}
    always = {"mode": spec.autoscaling.mode, memory.IGNORED_REPLICAS: spec.replicas}
    if outcome.decision is None:
        return {**old, **always}
    new = memory.status_of(outcome.decision)
    return {**memory.shown(new, old, outcome.may_show_numbers), **always}


def _reason(conditions: Iterable[Condition], autoscaling: Mapping[str, Any]) -> str:
    ready = next(condition for condition in conditions if condition.type == api.READY)
    return str(autoscaling.get("reason") or ready.reason) if ready.status else ready.reason


def _with_times(
    conditions: Iterable[Condition], old: Iterable[Mapping[str, Any]], service: api.Body, now: float
) -> list[dict[str, Any]]:
    before = {item["type"]: item for item in old}
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    result = []
    for condition in conditions:
        status = {True: "True", False: "False", None: "Unknown"}[condition.status]
        known = before.get(condition.type, {})
        result.append(
            {
                "type": condition.type,
                "status": status,
                "reason": condition.reason,
                "message": condition.message,
                "lastTransitionTime": known["lastTransitionTime"] if known.get("status") == status else stamp,
                "observedGeneration": service["metadata"].get("generation", 0),
            }
        )
    return result
