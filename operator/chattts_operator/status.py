"""The status of a TTSService, whole. Pure: now is an argument, and what has not changed keeps its old time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from . import api
from .autoscaling import memory
from .autoscaling.signals import Decision
from .observe import Observed, committed_of, is_rolling_out
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
LATENCY_ONLY = (
    "no autoscaling.targets.qpsPerReplica is set, so growth waits for the promise to break once; then it is learned"
)


@dataclass(frozen=True, slots=True)
class Condition:
    type: str
    status: bool | None  # None: unknown
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the reconcile did or could not do, as far as status has to say it."""

    desired: int | None = None
    image: str | None = None
    decision: Decision | None = None
    may_show_numbers: bool = True
    problems: tuple[str, ...] = ()  # of the spec
    conflicts: tuple[str, ...] = ()  # children that are not ours
    failure: str = ""  # what the API server refused
    held: str = ""  # why neither spec.replicas nor a decision gives the number


def build(spec: TTSServiceSpec | None, observed: Observed, outcome: Outcome, now: float) -> dict[str, Any]:
    """Everything we own in status; a field that is left out is removed."""
    old = ours(observed.service)
    deployment = observed.deployment or {}
    live = deployment.get("status") or {}
    before = old.get("conditions") or []
    conditions = [_kept(condition, spec, outcome, before) for condition in _conditions(spec, observed, outcome)]
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
        "modelRevision": old.get("modelRevision") if spec is None else spec.model.revision or None,
        "reason": _reason(conditions, autoscaling),
        "conditions": _with_times(conditions, before, observed.service, now),
        "autoscaling": autoscaling or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def ours(service: api.Body) -> dict[str, Any]:
    """What is in status and ours. What others have put there is neither compared nor taken over."""
    status = service.get("status") or {}
    autoscaling, known = status.get("autoscaling") or {}, ("mode", *memory.FIELDS)
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
        return {**kept, "mode": api.MODE_OPERATOR if outcome.held else spec.autoscaling.mode}
    if outcome.decision is None:
        return {**old, "mode": spec.autoscaling.mode}
    new = memory.status_of(outcome.decision)
    return {"mode": spec.autoscaling.mode, **memory.shown(new, old, outcome.may_show_numbers)}


def _reason(conditions: Iterable[Condition], autoscaling: Mapping[str, Any]) -> str:
    ready = next(condition for condition in conditions if condition.type == api.READY)
    return str(autoscaling.get("reason") or ready.reason) if ready.status else ready.reason


def _conditions(spec: TTSServiceSpec | None, observed: Observed, outcome: Outcome) -> Iterable[Condition]:
    """All types, always, in the order of api.CONDITION_TYPES."""
    available = _available(observed)
    capacity = _capacity(observed)
    yield _with_ignored(spec, _ready(outcome, available, capacity))
    yield available
    yield _progressing(observed, outcome)
    yield _scaling_active(spec, outcome)
    yield _scaling_limited(outcome)
    yield _scaling_effective(outcome)
    yield capacity
    yield Condition(api.DRIVER_COMPATIBLE, None, "NotChecked", "this version does not compare drivers")
    yield _model_cached(spec)
    yield _conflict(outcome)


def _ready(outcome: Outcome, available: Condition, capacity: Condition) -> Condition:
    if outcome.problems:
        return Condition(api.READY, False, "InvalidSpec", "; ".join(outcome.problems))
    if outcome.conflicts:
        return Condition(api.READY, False, "Conflict", "; ".join(outcome.conflicts))
    if available.status:
        return Condition(api.READY, True, "Serving", "requests are answered")
    if outcome.failure:
        return Condition(api.READY, False, "ApplyFailed", outcome.failure)
    if outcome.desired == 0:
        return Condition(api.READY, False, "ScaledToZero", "spec.replicas is 0")
    if capacity.status is False:
        return Condition(api.READY, False, capacity.reason, capacity.message)
    return Condition(api.READY, False, "Starting", "no pod is Ready yet")


def _with_ignored(spec: TTSServiceSpec | None, ready: Condition) -> Condition:
    """An Event is gone after an hour; here it stays."""
    if spec is None or not spec.ignored:
        return ready
    return replace(ready, message=f"{ready.message}; this version does not act upon: {', '.join(spec.ignored)}")


def _available(observed: Observed) -> Condition:
    ready = int(((observed.deployment or {}).get("status") or {}).get("readyReplicas", 0))
    if ready:
        return Condition(api.AVAILABLE, True, "PodsReady", "at least one pod is Ready")
    return Condition(api.AVAILABLE, False, "NoPodReady", "no pod is Ready")


def _progressing(observed: Observed, outcome: Outcome) -> Condition:
    deployment = observed.deployment
    if outcome.failure:
        return Condition(api.PROGRESSING, False, "ApplyFailed", outcome.failure)
    if deployment is None:
        return Condition(api.PROGRESSING, True, "Creating", "the Deployment is being made")
    status = deployment.get("status") or {}
    reported = {item["type"]: item for item in status.get("conditions") or []}
    if reported.get("Progressing", {}).get("reason") == "ProgressDeadlineExceeded":
        return Condition(api.PROGRESSING, False, "DeadlineExceeded", reported["Progressing"].get("message", ""))
    if is_rolling_out(deployment):
        return Condition(api.PROGRESSING, True, "RollingOut", "pods are being replaced")
    if int(status.get("readyReplicas", 0)) != committed_of(deployment):
        return Condition(api.PROGRESSING, True, "WaitingForPods", "pods are starting")
    return Condition(api.PROGRESSING, False, "Complete", "all pods are up to date and Ready")


def _scaling_active(spec: TTSServiceSpec | None, outcome: Outcome) -> Condition:
    if spec is None:
        return Condition(api.SCALING_ACTIVE, None, "InvalidSpec", "the spec cannot be used")
    scaling = spec.autoscaling
    if spec.paused:
        return Condition(api.SCALING_ACTIVE, False, "Paused", "spec.managementPolicy is Paused")
    if outcome.held:
        return Condition(api.SCALING_ACTIVE, False, "ReplicasHeld", outcome.held)
    if scaling.mode == api.MODE_NONE and scaling.mode_is_default:
        message = "the operator has no Prometheus (prometheus.url), so autoscaling.mode is None and replicas is taken"
        return Condition(api.SCALING_ACTIVE, False, "NoPrometheus", message)
    if scaling.mode == api.MODE_NONE:
        return Condition(api.SCALING_ACTIVE, False, "ModeNone", "autoscaling.mode is None: replicas is taken")
    if scaling.mode != api.MODE_OPERATOR:
        message = f"this version makes no object for mode {scaling.mode}: point your own at the TTSService's /scale"
        return Condition(api.SCALING_ACTIVE, False, "NotManaged", message)
    decision = outcome.decision
    if decision is None:
        return Condition(api.SCALING_ACTIVE, None, "NoDecisionYet", "the first decision is on its way")
    if decision.reason in ("MetricsMissing", "Fallback"):
        return Condition(api.SCALING_ACTIVE, False, "MetricsMissing", "metrics are missing: the number is held")
    if decision.reason in memory.HOLDING:
        return Condition(api.SCALING_ACTIVE, False, decision.reason, "the number is held")
    if scaling.qps_per_replica is None and decision.state.learned_qps is None:
        return Condition(api.SCALING_ACTIVE, True, "LatencyOnly", LATENCY_ONLY)
    return Condition(api.SCALING_ACTIVE, True, "Deciding", "latency and requests per second decide")


LIMITS = {
    "AtMaxReplicas": "more is wanted than autoscaling.maxReplicas allows",
    "Unschedulable": "no more pods are asked for while some cannot be placed",
    "Probing": "pods could not be placed a short while ago: they are asked for one at a time",
    "ComputeBound": "requests are late though each is alone in its pod: more pods would be as slow",
    "StepLimit": "the step was cut to autoscaling.scaleUp.maxPercent",
}


def _scaling_limited(outcome: Outcome) -> Condition:
    if outcome.decision is None:
        return Condition(api.SCALING_LIMITED, None, "NoDecisionYet", "nothing was decided")
    limited = outcome.decision.limited
    if limited:
        return Condition(api.SCALING_LIMITED, True, limited, LIMITS[limited])
    return Condition(api.SCALING_LIMITED, False, "DesiredWithinRange", "the number is what was wanted")


def _scaling_effective(outcome: Outcome) -> Condition:
    state = None if outcome.decision is None else outcome.decision.state
    if state is None or state.p99_at_last_step is None:
        return Condition(api.SCALING_EFFECTIVE, None, "NoStepYet", "no step because of latency was taken")
    if state.ineffective_steps:
        message = "the last step because of latency did not help; the next one waits longer"
        return Condition(api.SCALING_EFFECTIVE, False, "StepDidNotHelp", message)
    return Condition(api.SCALING_EFFECTIVE, True, "StepHelped", "nothing says that steps do not help")


def _capacity(observed: Observed) -> Condition:
    pods = [pod for pod in observed.pods if not pod.leaving]
    stuck = sorted((pod for pod in pods if pod.unschedulable), key=lambda pod: (pod.unschedulable_since, pod.name))
    if stuck:
        since = f" (since {stuck[0].unschedulable_since})" if stuck[0].unschedulable_since else ""
        message = f"{len(stuck)} of {len(pods)} pods cannot be placed{since}: {stuck[0].unschedulable}"
        return Condition(api.CAPACITY_AVAILABLE, False, "Unschedulable", message)
    if any(pod.scheduled_at is not None for pod in pods):
        return Condition(api.CAPACITY_AVAILABLE, True, "AllPlaced", "every pod has a node")
    return Condition(api.CAPACITY_AVAILABLE, None, "NoPods", "no pod has been placed yet")


def _model_cached(spec: TTSServiceSpec | None) -> Condition:
    if spec is not None and spec.model.source != "HuggingFace":
        return Condition(api.MODEL_CACHED, True, "Mounted", "the weights are mounted from where the user keeps them")
    return Condition(api.MODEL_CACHED, None, "FetchedByPods", "every pod fetches the weights itself")


def _conflict(outcome: Outcome) -> Condition:
    if outcome.conflicts:
        return Condition(api.CONFLICT, True, "ForeignChild", "; ".join(outcome.conflicts))
    return Condition(api.CONFLICT, False, "NoConflict", "every child is ours")


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
