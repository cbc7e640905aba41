"""Everything that is read for one TTSService, in one struct; missing is None. Decides nothing.

Reads go to the API server itself, not to a cache: a stale cache can then neither shrink nor delete anything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from . import api
from .autoscaling.signals import ColdStart, Fleet
from .drivers import Node

REPORTS_AFTER_SECONDS = 60.0  # a pod that is Ready for this long must have been scraped


class Reader(Protocol):
    async def get(self, kind: api.Kind, namespace: str, name: str) -> api.Body | None: ...
    async def list(self, kind: api.Kind, namespace: str | None, selector: str | None) -> list[api.Body]: ...


@dataclass(frozen=True, slots=True)
class Pod:
    """What we need of a pod; times are seconds since the epoch."""

    name: str
    uid: str
    leaving: bool
    created_at: float | None
    scheduled_at: float | None
    started_at: float | None  # the server's container; None: not running
    ready_at: float | None  # None: not Ready
    first_ready_at: float | None  # as far as this process has seen; a pod that flaps keeps it
    unschedulable: str  # the scheduler's own words, or empty
    unschedulable_since: str
    trouble: str = ""  # why a container waits or ended last: "ImagePullBackOff: ...", "exit code 78: ..."


@dataclass(frozen=True, slots=True)
class Observed:
    service: api.Body  # the TTSService
    children: Mapping[api.Kind, api.Body]  # those that exist
    pods: tuple[Pod, ...]
    served: frozenset[api.Kind]  # optional kinds that the API server knows
    fetching: tuple[Pod, ...] = ()  # pods of the fetch Job, while it is not complete
    nodes: tuple[Node, ...] | None = None  # None: not read, or not to be read

    @property
    def deployment(self) -> api.Body | None:
        return self.children.get(api.DEPLOYMENT)


async def observe(
    reader: Reader, key: api.Key, served: frozenset[api.Kind], nodes: tuple[Node, ...] | None = None
) -> Observed | None:
    """None: there is no such TTSService."""
    service = await reader.get(api.TTS_SERVICE, *key)
    if service is None:
        return None
    kinds = [kind for kind in api.CHILD_KINDS if kind not in api.OPTIONAL_KINDS or kind in served]
    found = [(kind, await reader.get(kind, key.namespace, api.child_name(kind, key.name))) for kind in kinds]
    children = {kind: body for kind, body in found if body is not None}
    pods = await reader.list(api.POD, key.namespace, f"{api.LABEL_SERVICE}={key.name}")
    fetching: list[api.Body] = []
    if api.JOB in children and not _is_complete(children[api.JOB]):
        fetching = await reader.list(api.POD, key.namespace, f"{api.LABEL_FETCH}={key.name}")
    return Observed(
        service=service,
        children=children,
        pods=tuple(pod_of(body) for body in pods),
        served=served,
        fetching=tuple(pod_of(body) for body in fetching),
        nodes=nodes,
    )


def _is_complete(job: api.Body) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(item["type"] == "Complete" and item["status"] == "True" for item in conditions)


def pod_of(body: api.Body) -> Pod:
    metadata, status = body["metadata"], body.get("status") or {}
    conditions = {item["type"]: item for item in status.get("conditions") or []}
    scheduled, ready = conditions.get("PodScheduled", {}), conditions.get("Ready", {})
    stuck = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        leaving=bool(metadata.get("deletionTimestamp")) or status.get("phase") in ("Succeeded", "Failed"),
        created_at=_time(metadata.get("creationTimestamp")),
        scheduled_at=_since(scheduled),
        started_at=_started(status),
        ready_at=_since(ready),
        first_ready_at=_since(ready),
        unschedulable=scheduled.get("message", "no node fits") if stuck else "",
        unschedulable_since=scheduled.get("lastTransitionTime", "") if stuck else "",
        trouble=_trouble(status),
    )


def _trouble(status: Mapping[str, Any]) -> str:
    """Of the first container that has one; in the kubelet's words and the container's own last line."""
    for container in (*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])):
        state, last = container.get("state") or {}, container.get("lastState") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or last.get("terminated") or {}
        if ended.get("exitCode") and not container.get("ready"):
            said = (ended.get("message") or ended.get("reason") or "").strip().splitlines()
            return f"{container['name']} ended with exit code {ended['exitCode']}: {said[-1] if said else ''}"[:500]
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"{container['name']} waits, {waiting['reason']}: {waiting.get('message', '')}"[:500]
    return ""


def _since(condition: Mapping[str, Any]) -> float | None:
    if condition.get("status") != "True" or not condition.get("lastTransitionTime"):
        return None
    return _time(condition["lastTransitionTime"])


def _started(status: Mapping[str, Any]) -> float | None:
    """Of a container that was started anew the first start is forgotten: then the pull is not told from the start."""
    states = status.get("containerStatuses") or []
    server: Mapping[str, Any] = next(
        (item for item in states if item.get("name") == "server" and not item.get("restartCount")), {}
    )
    return _time(((server.get("state") or {}).get("running") or {}).get("startedAt"))


def _time(text: str | None) -> float | None:
    return datetime.fromisoformat(text).timestamp() if text else None


def _cold_start(pod: Pod, scheduled_at: float, ready_at: float) -> ColdStart:
    placing = None if pod.created_at is None else max(0.0, scheduled_at - pod.created_at)
    started_at = pod.started_at
    if started_at is None or not scheduled_at <= started_at <= ready_at:
        return ColdStart(ready_at - scheduled_at, placing=placing)
    return ColdStart(ready_at - started_at, started_at - scheduled_at, placing)


def fleet_of(
    deployment: api.Body, pods: Iterable[Pod], now: float, startup_deadline_seconds: float = math.inf
) -> Fleet:
    """The pods as the policy sees them. Pods that leave are no pods."""
    present = [pod for pod in pods if not pod.leaving]
    ready = [(pod.ready_at, pod) for pod in present if pod.ready_at is not None]
    first = [(pod.first_ready_at or ready_at, pod) for ready_at, pod in ready]
    newest = max(first, key=lambda item: item[0], default=None)
    cold_start = None
    scheduled_at = None if newest is None else newest[1].scheduled_at
    refused = refused_pods(deployment, present)
    # Longer than a start may last: the pod was Ready before, and this process has not seen when.
    if newest is not None and scheduled_at is not None and newest[0] - scheduled_at <= startup_deadline_seconds:
        cold_start = (newest[1].uid, _cold_start(newest[1], scheduled_at, newest[0]))
    return Fleet(
        committed=committed_of(deployment),
        ready=len(ready),
        ready_a_minute=sum(now - ready_at >= REPORTS_AFTER_SECONDS for ready_at, _ in ready),
        unschedulable=sum(bool(pod.unschedulable) for pod in present) + (refused.count if refused else 0),
        overdue=sum(_is_overdue(pod, now, startup_deadline_seconds) for pod in present),
        last_ready_at=None if newest is None else newest[0],
        rolling_out=is_rolling_out(deployment),
        cold_start=cold_start,
    )


@dataclass(frozen=True, slots=True)
class RefusedPods:
    """Pods that the API server does not let the Deployment make: a quota, or an admission."""

    count: int  # of those that are wanted and not there
    message: str
    since: str


def refused_pods(deployment: api.Body, pods: Iterable[Pod]) -> RefusedPods | None:
    reported = {item["type"]: item for item in (deployment.get("status") or {}).get("conditions") or []}
    failure = reported.get("ReplicaFailure", {})
    if failure.get("status") != "True":
        return None
    missing = int(deployment["spec"].get("replicas", 1)) - sum(not pod.leaving for pod in pods)
    return RefusedPods(max(0, missing), failure.get("message", "no reason"), failure.get("lastTransitionTime", ""))


def _is_overdue(pod: Pod, now: float, startup_deadline_seconds: float) -> bool:
    """Crash-looping, or Ready once and not any more: to wait for it would end all steps for ever."""
    return pod.ready_at is None and pod.scheduled_at is not None and now - pod.scheduled_at > startup_deadline_seconds


def committed_of(deployment: api.Body) -> int:
    """The number that we wrote last. A hand's change of spec.replicas alone is drift and not a decision."""
    ours = (deployment["metadata"].get("labels") or {}).get(api.LABEL_REPLICAS, "")
    return int(ours) if re.fullmatch("[0-9]{1,6}", ours) else int(deployment["spec"].get("replicas", 1))


def is_rolling_out(deployment: api.Body) -> bool:
    """Pods of an older template are still there, or the controller has not looked at the template yet."""
    status, generation = deployment.get("status") or {}, deployment["metadata"].get("generation", 0)
    if status.get("observedGeneration", 0) < generation:
        return True
    return int(status.get("updatedReplicas", 0)) < int(status.get("replicas", 0))
