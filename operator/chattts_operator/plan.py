"""What should be: spec and observed go in, the children to apply and to delete come out. Pure, writes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from . import api
from .autoscaling.signals import Decision
from .compare import difference
from .events import Note
from .observe import Observed, committed_of
from .resources.child import is_owned
from .resources.deployment import SCRAPE_ANNOTATION, deployment
from .resources.monitoring import pod_monitor, prometheus_rule
from .resources.service import service
from .spec import InvalidSpec, TTSServiceSpec

SCALED = ("ScaledOut", "ScaledIn")  # Events of what has happened
REPLICAS_HELD = "ReplicasHeld"
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
    writes: tuple[Write, ...]
    deletes: tuple[tuple[api.Kind, api.Body], ...]
    conflicts: tuple[str, ...]
    notes: tuple[Note, ...]


def plan(spec: TTSServiceSpec, observed: Observed, decision: Decision | None, default_image: str) -> Plan:
    image = image_of(spec, observed, default_image)
    replicas = replicas_of(spec, observed, decision)
    intents = _intents(spec, observed, replicas, image)
    conflicts = tuple(
        f"{kind.kind} {spec.key} exists and is not controlled by this TTSService: delete or rename one of them"
        for kind, body in observed.children.items()
        if kind in intents and not is_owned(body, spec.uid)
    )
    writes, deletes = _writes(intents, observed), _deletes(spec, intents, observed)
    if conflicts or spec.paused:
        writes, deletes = (), ()
    held = is_held(spec, observed)
    return Plan(replicas, held, image, writes, deletes, conflicts, _notes(spec, observed, writes, decision))


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
    """In mode Operator: the decision, if it was taken on the number that is live; else the live number."""
    operated = spec.autoscaling.mode == api.MODE_OPERATOR
    if observed.deployment is None:
        return spec.autoscaling.min_replicas if operated else spec.replicas
    live = committed_of(observed.deployment)
    if not operated:
        return live if is_held(spec, observed) else spec.replicas
    if decision is not None and decision.committed == live:
        return spec.autoscaling.clamp(decision.desired)
    return spec.autoscaling.clamp(live)


def is_held(spec: TTSServiceSpec, observed: Observed) -> bool:
    """Nobody has named a number since mode Operator ended, be it by the user or by the loss of prometheus.url.

    spec.replicas was ignored until then, mostly it is the default 1: to obey it at once would end most of the pods.
    An edit with another number than the default is taken as meant. Status keeps "Operator" while this holds.
    """
    status = observed.service.get("status") or {}
    if spec.autoscaling.mode == api.MODE_OPERATOR or observed.deployment is None:
        return False
    if (status.get("autoscaling") or {}).get("mode") != api.MODE_OPERATOR:
        return False
    unedited = status.get("observedGeneration") == observed.service["metadata"].get("generation", 0)
    return unedited or spec.replicas == DEFAULT_REPLICAS


def _intents(spec: TTSServiceSpec, observed: Observed, replicas: int, image: str) -> dict[api.Kind, api.Body]:
    monitor = monitor_of(spec, observed)
    intents = {
        api.SERVICE: service(spec),
        api.DEPLOYMENT: deployment(spec, replicas, image, scrape_annotations=monitor == "Annotations"),
    }
    if monitor == "PodMonitor" and api.POD_MONITOR in observed.served:
        intents[api.POD_MONITOR] = pod_monitor(spec)
    if spec.monitoring.rules and monitor != "None" and api.PROMETHEUS_RULE in observed.served:
        intents[api.PROMETHEUS_RULE] = prometheus_rule(spec)
    return intents


def monitor_of(spec: TTSServiceSpec, observed: Observed) -> str:
    """The default follows the cluster at first sight and then stays: a change would restart every GPU pod."""
    if spec.monitoring.monitor is not None:
        return spec.monitoring.monitor
    if observed.deployment is None:
        return "PodMonitor" if api.POD_MONITOR in observed.served else "Annotations"
    template = observed.deployment["spec"]["template"]["metadata"]
    return "Annotations" if SCRAPE_ANNOTATION in (template.get("annotations") or {}) else "PodMonitor"


def _writes(intents: dict[api.Kind, api.Body], observed: Observed) -> tuple[Write, ...]:
    writes = []
    for kind, intent in intents.items():
        live = observed.children.get(kind)
        if live is None:
            writes.append(Write(kind, intent, "missing", force=False))
        elif (why := difference(intent, live)) is not None:
            # The uid is a fence: an object that was made anew in the meantime refuses the write.
            metadata = {**intent["metadata"], "uid": live["metadata"]["uid"]}
            writes.append(Write(kind, {**intent, "metadata": metadata}, why, force=True))
    return tuple(writes)


def _deletes(
    spec: TTSServiceSpec, intents: dict[api.Kind, api.Body], observed: Observed
) -> tuple[tuple[api.Kind, api.Body], ...]:
    return tuple(
        (kind, body)
        for kind, body in observed.children.items()
        if kind not in intents and is_owned(body, spec.uid) and not body["metadata"].get("deletionTimestamp")
    )


def _notes(
    spec: TTSServiceSpec, observed: Observed, writes: tuple[Write, ...], decision: Decision | None
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
