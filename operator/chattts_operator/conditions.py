"""The conditions of a TTSService: what was read and done becomes a reason and a sentence each. Pure; knows no time.

docs/operations.md lists every reason and what to do; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from . import api
from .autoscaling import memory
from .autoscaling.signals import Decision
from .drivers import Verdict
from .model_cache import Weights
from .observe import Observed, committed_of, is_rolling_out, refused_pods
from .spec import TTSServiceSpec

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
    weights: Weights | None = None  # None: the spec cannot be used
    drivers: Verdict | None = None
    held: str = ""  # why neither spec.replicas nor a decision gives the number


def conditions_of(spec: TTSServiceSpec | None, observed: Observed, outcome: Outcome) -> Iterable[Condition]:
    """All types, always, in the order of api.CONDITION_TYPES."""
    available, capacity, model = _available(observed), _capacity(observed), _model_cached(spec, outcome)
    yield _with_ignored(spec, _ready(outcome, observed, available, capacity, model))
    yield available
    yield _progressing(observed, outcome)
    yield _scaling_active(spec, outcome)
    yield _scaling_limited(outcome)
    yield _scaling_effective(outcome)
    yield capacity
    yield _driver_compatible(outcome)
    yield model
    yield _conflict(outcome)


def _ready(
    outcome: Outcome, observed: Observed, available: Condition, capacity: Condition, model: Condition
) -> Condition:
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
    if observed.deployment is None and model.status is False:
        return Condition(api.READY, False, model.reason, model.message)
    if capacity.status is False:
        return Condition(api.READY, False, capacity.reason, capacity.message)
    if trouble := _trouble(observed):
        return Condition(api.READY, False, "PodsFailing", trouble)
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
    status, trouble = deployment.get("status") or {}, _trouble(observed)
    reported = {item["type"]: item for item in status.get("conditions") or []}
    if reported.get("Progressing", {}).get("reason") == "ProgressDeadlineExceeded":
        message = trouble or reported["Progressing"].get("message", "")
        return Condition(api.PROGRESSING, False, "DeadlineExceeded", message)
    wanted, because = committed_of(deployment), f"; {trouble}" if trouble else ""
    if is_rolling_out(deployment):
        new = min(int(status.get("updatedReplicas", 0)), wanted)
        return Condition(api.PROGRESSING, True, "RollingOut", f"{new} of {wanted} pods are replaced{because}")
    ready = int(status.get("readyReplicas", 0))
    if ready != wanted:
        return Condition(api.PROGRESSING, True, "WaitingForPods", f"{ready} of {wanted} pods are Ready{because}")
    return Condition(api.PROGRESSING, False, "Complete", "all pods are up to date and Ready")


def _trouble(observed: Observed) -> str:
    """Of the newest pod that is in trouble: a pod that came from the newest template, as a rule."""
    found = [pod for pod in observed.pods if pod.trouble and pod.ready_at is None and not pod.leaving]
    newest = max(found, key=lambda pod: (pod.created_at or 0.0, pod.name), default=None)
    return "" if newest is None else f"pod {newest.name}: {newest.trouble}"


def _scaling_active(spec: TTSServiceSpec | None, outcome: Outcome) -> Condition:
    if spec is None:
        return Condition(api.SCALING_ACTIVE, None, "InvalidSpec", "the spec cannot be used")
    scaling = spec.autoscaling
    if spec.paused:
        return Condition(api.SCALING_ACTIVE, False, "Paused", "spec.managementPolicy is Paused")
    if outcome.held:
        return Condition(api.SCALING_ACTIVE, False, "ReplicasHeld", outcome.held)
    if scaling.mode == api.MODE_NONE and scaling.why_none:
        return Condition(api.SCALING_ACTIVE, False, "ModeKept", scaling.why_none)
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
    if outcome.decision is not None and outcome.decision.reason == "ComputeBound":
        message = "requests are late though each is alone in its pod: more pods would be as slow"
        return Condition(api.SCALING_EFFECTIVE, False, "ComputeBound", message)
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
    refused = None if observed.deployment is None else refused_pods(observed.deployment, pods)
    if refused is not None:
        since = f" (since {refused.since})" if refused.since else ""
        pods_refused = f"{refused.count} pods are" if refused.count else "a pod of a rollout is"
        message = f"{pods_refused} refused by the API server{since}: {refused.message}"
        return Condition(api.CAPACITY_AVAILABLE, False, "PodsRefused", message)
    if any(pod.scheduled_at is not None for pod in pods):
        return Condition(api.CAPACITY_AVAILABLE, True, "AllPlaced", "every pod has a node")
    return Condition(api.CAPACITY_AVAILABLE, None, "NoPods", "no pod has been placed yet")


_MODEL_REASONS = {
    "Waiting": (False, "WaitingForClaim"),
    "Fetching": (False, "Fetching"),
    "Failed": (False, "FetchFailed"),
    "Complete": (True, "Fetched"),
}


def _model_cached(spec: TTSServiceSpec | None, outcome: Outcome) -> Condition:
    if spec is None:
        return Condition(api.MODEL_CACHED, None, "InvalidSpec", "the spec cannot be used")
    if not spec.model.is_downloaded:
        return Condition(api.MODEL_CACHED, True, "Mounted", "the weights are mounted from where the user keeps them")
    if outcome.weights is None or not outcome.weights.state:
        return Condition(api.MODEL_CACHED, None, "FetchedByPods", "every pod fetches the weights itself")
    status, reason = _MODEL_REASONS[outcome.weights.state]
    return Condition(api.MODEL_CACHED, status, reason, outcome.weights.message)


def _driver_compatible(outcome: Outcome) -> Condition:
    if outcome.drivers is None:
        return Condition(api.DRIVER_COMPATIBLE, None, "InvalidSpec", "the spec cannot be used")
    return Condition(api.DRIVER_COMPATIBLE, outcome.drivers.compatible, outcome.drivers.reason, outcome.drivers.message)


def _conflict(outcome: Outcome) -> Condition:
    if outcome.conflicts:
        return Condition(api.CONFLICT, True, "ForeignChild", "; ".join(outcome.conflicts))
    return Condition(api.CONFLICT, False, "NoConflict", "every child is ours")
