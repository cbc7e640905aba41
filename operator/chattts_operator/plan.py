"""What should be: spec and observed go in, the children to apply and to delete come out. Pure, writes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from . import api
from .autoscaling import memory
from .autoscaling.signals import Decision
from .compare import difference
from .drivers import Verdict, judge
from .model_cache import Weights, weights_of
from .notes import Note
from .observe import Observed, committed_of, is_rolling_out
from .resources.child import is_ours, is_owned
from .resources.dashboard import dashboard
from .resources.deployment import deployment
from .resources.disruption import disruption_budget
from .resources.monitoring import pod_monitor, prometheus_rule
from .resources.network import network_policy
from .resources.pod import SCRAPE_ANNOTATIONS
from .resources.service import service
from .resources.storage import claim, fetch_job
from .resources.weights import revision_of
from .rollout import Strategy, gives_up_surge, strategy_of, surge_ends_in
from .spec import InvalidSpec, OperatorDefaults, TTSServiceSpec

SCALED = ("ScaledOut", "ScaledIn")  # Events of what has happened
REPLICAS_HELD = "ReplicasHeld"
COME_LATER = (api.JOB, api.DEPLOYMENT)  # with a claim: the Job waits for it, the Deployment for the Job
LOOK_SECONDS = 30.0  # between two looks at a download: its pods send no events to us
DEFAULT_REPLICAS = 1  # of spec.replicas; the API server fills it in, so it says nothing


@dataclass(frozen=True, slots=True)
class Write:
    """One child to apply."""

    kind: api.Kind
    intent: api.Body
    why: str  # for the log: "missing", or the field that differs
    force: bool  # over other managers: only where the live object is already ours


@dataclass(frozen=True, slots=True)
class Plan:
    replicas: int
    held: bool  # the number of the time in mode Operator, not spec.replicas
    image: str
    weights: Weights
    drivers: Verdict
    writes: tuple[Write, ...]
    deletes: tuple[tuple[api.Kind, api.Body], ...]
    conflicts: tuple[str, ...]
    notes: tuple[Note, ...]
    again_in: float | None  # seconds until time alone changes the plan


def plan(
    spec: TTSServiceSpec, observed: Observed, decision: Decision | None, defaults: OperatorDefaults, now: float
) -> Plan:
    image = image_of(spec, observed, defaults.server_image)
    replicas = replicas_of(spec, observed, decision)
    weights = weights_of(spec, observed, now)
    strategy = strategy_of(spec, observed, replicas, now)
    intents = _intents(spec, observed, replicas, image, weights, strategy)
    conflicts = tuple(
        f"{kind.kind} {spec.key.namespace}/{body['metadata']['name']} exists and is not controlled by this TTSService: "
        "delete or rename one of them"
        for kind, body in observed.children.items()
        if (kind in intents or (spec.model.on_claim and kind in COME_LATER)) and not is_ours(kind, body, spec)
    )
    writes, deletes = _writes(intents, observed), _deletes(spec, intents, observed, weights)
    if conflicts or spec.paused:
        writes, deletes = (), ()
    return Plan(
        replicas=replicas,
        held=is_held(spec, observed),
        image=image,
        weights=weights,
        drivers=judge(spec, _cuda_version(spec, image, defaults), observed.nodes),
        writes=writes,
        deletes=deletes,
        conflicts=conflicts,
        notes=_notes(spec, observed, writes, decision, gives_up_surge(spec, observed, replicas, now)),
        again_in=None if spec.paused else _again_in(spec, observed, weights, now),
    )


def _cuda_version(spec: TTSServiceSpec, image: str, defaults: OperatorDefaults) -> str:
    if spec.image.cuda_version:
        return spec.image.cuda_version
    return defaults.server_cuda_version if image == defaults.server_image else ""


def _again_in(spec: TTSServiceSpec, observed: Observed, weights: Weights, now: float) -> float | None:
    """What is waited for sends an event when it comes; a time that passes does not."""
    look = LOOK_SECONDS if weights.state in ("Waiting", "Fetching") else None
    times = (weights.retry_in, look, surge_ends_in(spec, observed, now) or None)
    return min((seconds for seconds in times if seconds is not None), default=None)


def image_of(spec: TTSServiceSpec, observed: Observed, default_image: str) -> str:
    """The default is fixed at first sight: by status, and by the Deployment should status be lost."""
    live = None
    if observed.deployment is not None and is_owned(observed.deployment, spec.uid):
        containers = observed.deployment["spec"]["template"]["spec"]["containers"]
        live = next((item["image"] for item in containers if item["name"] == "server"), None)
    fixed = (observed.service.get("status") or {}).get("image")
    image = spec.image.reference or fixed or live or default_image
    if not image:
        raise InvalidSpec(
            ["spec.image is needed, because the operator has no default (chart value defaults.server.image)"]
        )
    return str(image)


def replicas_of(spec: TTSServiceSpec, observed: Observed, decision: Decision | None) -> int:
    """In mode Operator: the decision, if it was taken on the number that is live; else the live number.

    Where somebody has deleted the Deployment, status says how many there were.
    """
    operated = spec.autoscaling.mode == api.MODE_OPERATOR
    if observed.deployment is None:
        told = (observed.service.get("status") or {}).get("desiredReplicas")
        return spec.autoscaling.clamp(int(told or 0)) if operated else spec.replicas
    live = committed_of(observed.deployment)
    if not operated:
        return live if is_held(spec, observed) else spec.replicas
    if decision is not None and decision.committed == live:
        return spec.autoscaling.clamp(decision.desired)
    return spec.autoscaling.clamp(live)


def is_held(spec: TTSServiceSpec, observed: Observed) -> bool:
    """Nobody has named a number since mode Operator ended, be it by the user or by the loss of prometheus.url.

    spec.replicas was ignored until then: to obey what has stood there for weeks would end most of the pods. Another
    number than the one that was ignored is meant. Status keeps "Operator" while this holds.
    """
    status = observed.service.get("status") or {}
    if spec.autoscaling.mode == api.MODE_OPERATOR or observed.deployment is None:
        return False
    scaling = status.get("autoscaling") or {}
    if scaling.get("mode") != api.MODE_OPERATOR:
        return False
    return spec.replicas == int(scaling.get(memory.IGNORED_REPLICAS, DEFAULT_REPLICAS))


def _intents(
    spec: TTSServiceSpec, observed: Observed, replicas: int, image: str, weights: Weights, strategy: Strategy
) -> dict[api.Kind, api.Body]:
    """In the order in which they are written."""
    monitor = monitor_of(spec, observed)
    intents: dict[api.Kind, api.Body] = {}
    if spec.model.on_claim:
        intents[api.CLAIM] = claim(spec, observed.children.get(api.CLAIM))
        if weights.claim_uid is not None and not weights.replace_job:
            intents[api.JOB] = fetch_job(spec, image, weights.claim_uid)
    if spec.networking.restricted:
        intents[api.NETWORK_POLICY] = network_policy(spec)
    intents[api.SERVICE] = service(spec)
    intents[api.POD_DISRUPTION_BUDGET] = disruption_budget(spec)
    if weights.serve is not None:
        scraped = monitor == "Annotations"
        intents[api.DEPLOYMENT] = deployment(spec, replicas, image, scraped, strategy, weights.serve)
    if monitor == "PodMonitor" and api.POD_MONITOR in observed.served:
        intents[api.POD_MONITOR] = pod_monitor(spec)
    if spec.monitoring.rules and monitor != "None" and api.PROMETHEUS_RULE in observed.served:
        intents[api.PROMETHEUS_RULE] = prometheus_rule(spec)
    if spec.monitoring.dashboard:
        intents[api.CONFIG_MAP] = dashboard(spec)
    return intents


def monitor_of(spec: TTSServiceSpec, observed: Observed) -> str:
    """The default follows the cluster at first sight and then stays: a change would restart every GPU pod."""
    if spec.monitoring.monitor is not None:
        return spec.monitoring.monitor
    monitor = observed.children.get(api.POD_MONITOR)
    if monitor is not None and is_owned(monitor, spec.uid):
        return "PodMonitor"
    signs = SCRAPE_ANNOTATIONS.keys() - (spec.overlay.get("metadata", {}).get("annotations") or {}).keys()
    if observed.deployment is None or not signs:  # what the overlay sets says nothing about us
        return "PodMonitor" if api.POD_MONITOR in observed.served else "Annotations"
    template = observed.deployment["spec"]["template"]["metadata"]
    return "Annotations" if signs & (template.get("annotations") or {}).keys() else "PodMonitor"


def _writes(intents: dict[api.Kind, api.Body], observed: Observed) -> tuple[Write, ...]:
    writes = []
    for kind, intent in intents.items():
        live = observed.children.get(kind)
        if live is None:
            writes.append(Write(kind, intent, "missing", force=False))
        elif kind == api.JOB:
            continue  # its template cannot be changed; weights_of says when it has to be made anew
        elif (why := difference(intent, live)) is not None:
            # The uid is a fence: an object that was made anew in the meantime refuses the write.
            metadata = {**intent["metadata"], "uid": live["metadata"]["uid"]}
            writes.append(Write(kind, {**intent, "metadata": metadata}, why, force=True))
    return tuple(writes)


def _deletes(
    spec: TTSServiceSpec, intents: dict[api.Kind, api.Body], observed: Observed, weights: Weights
) -> tuple[tuple[api.Kind, api.Body], ...]:
    return tuple(
        (kind, body)
        for kind, body in observed.children.items()
        if kind not in intents
        and is_owned(body, spec.uid)
        and not body["metadata"].get("deletionTimestamp")
        and not (kind == api.DEPLOYMENT and weights.serve is None)  # it goes on with what it mounts until then
        and not (kind == api.CLAIM and _is_mounted(body, observed))
    )


def _is_mounted(claim: api.Body, observed: Observed) -> bool:
    """Pods of the old template may still start on it."""
    deployment = observed.deployment
    if deployment is None:
        return False
    pod = deployment["spec"]["template"]["spec"]
    return revision_of(pod, claim["metadata"]["name"]) is not None or is_rolling_out(deployment)


def _notes(
    spec: TTSServiceSpec,
    observed: Observed,
    writes: tuple[Write, ...],
    decision: Decision | None,
    gives_up: bool,
) -> tuple[Note, ...]:
    notes = []
    generation = str(observed.service["metadata"].get("generation", 0))
    old = (observed.service.get("status") or {}).get("observedGeneration")
    if str(old) != generation:
        if spec.ignored:
            fields = ", ".join(spec.ignored)
            notes.append(Note("FieldIgnored", f"this version does not act upon: {fields}", True, generation))
        if spec.autoscaling.mode == api.MODE_OPERATOR and spec.replicas != DEFAULT_REPLICAS:
            message = "spec.replicas is ignored in autoscaling.mode Operator: use minReplicas and maxReplicas"
            notes.append(Note("ReplicasIgnored", message, False, generation))
    if is_held(spec, observed) and not spec.paused and _scaling_reason(observed) != REPLICAS_HELD:
        notes.append(Note(REPLICAS_HELD, held_message(spec, observed), True, generation))
    if gives_up and any(write.kind == api.DEPLOYMENT for write in writes):
        message = (
            f"no node has room for a second pod since {spec.rollout.capacity_wait_seconds} s: the old pod is ended "
            "first (rollout.capacityPolicy Auto); choose Surge to wait for ever"
        )
        notes.append(Note("SurgeGivenUp", message, True, generation))
    notes += _scaling_notes(observed, writes, decision)
    return tuple(notes)


def held_message(spec: TTSServiceSpec, observed: Observed) -> str:
    number = 0 if observed.deployment is None else committed_of(observed.deployment)
    return (
        f"autoscaling.mode is {spec.autoscaling.mode} now: the {number} replicas of before are held until spec.replicas"
        f" is changed, for example by kubectl scale tts/{spec.key.name} --replicas={number}"
    )


def _scaling_reason(observed: Observed) -> str:
    conditions = (observed.service.get("status") or {}).get("conditions") or []
    return next((str(item["reason"]) for item in conditions if item["type"] == api.SCALING_ACTIVE), "")


def _scaling_notes(observed: Observed, writes: tuple[Write, ...], decision: Decision | None) -> list[Note]:
    change = None if decision is None else decision.state.last_change
    for write in writes:
        if write.kind != api.DEPLOYMENT or observed.deployment is None or change is None:
            continue
        if (committed_of(observed.deployment), write.intent["spec"]["replicas"]) == (change.before, change.after):
            message = f"{change.before} -> {change.after} replicas: {change.reason}, {change.message}"
            return [Note(SCALED[change.after < change.before], message, False, str(change.time))]
    return []
