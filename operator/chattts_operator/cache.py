"""What the informers saw last, and which TTSService to wake for it. No kopf, no API, no decisions.

Only the scaling tick reads it; a reconcile reads the API server. So a stale entry can delay, and nothing worse.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from . import api
from .observe import Pod, pod_of


@dataclass(frozen=True, slots=True)
class Known:
    """uids of the children of one TTSService."""

    pods: frozenset[str] = frozenset()
    deployment: str | None = None


@dataclass(slots=True)
class Cache:
    services: dict[api.Key, api.Body] = field(default_factory=dict)
    deployments: dict[api.Key, api.Body] = field(default_factory=dict)
    pods: dict[api.Key, dict[str, Pod]] = field(default_factory=dict)

    def saw(self, kind: api.Kind, body: api.Body, deleted: bool) -> api.Key | None:
        """The key to wake, or None if nothing changed that matters."""
        key = api.key_of({**body, "kind": kind.kind})
        if kind == api.POD:
            return key if self._saw_pod(key, pod_of(body), deleted) else None
        if kind == api.DEPLOYMENT and body["metadata"]["name"] != api.child_name(kind, key.name):
            return None  # a copy with our labels is not ours
        store = {api.TTS_SERVICE: self.services, api.DEPLOYMENT: self.deployments}.get(kind)
        if store is not None:
            if deleted:
                store.pop(key, None)
            else:
                store[key] = _slim(body)
        return key

    def pods_of(self, key: api.Key) -> Iterable[Pod]:
        return self.pods.get(key, {}).values()

    def _saw_pod(self, key: api.Key, pod: Pod, deleted: bool) -> bool:
        known = self.pods.setdefault(key, {})
        before = known.get(pod.uid)
        if deleted:
            known.pop(pod.uid, None)
            if not known:
                del self.pods[key]
            return before is not None
        if before is not None and before.first_ready_at is not None:
            pod = replace(pod, first_ready_at=before.first_ready_at)
        known[pod.uid] = pod
        return before != pod

    def known(self, key: api.Key) -> Known:
        """To be asked before a list or a get: what appears meanwhile must not count as gone."""
        deployment = self.deployments.get(key)
        uid = None if deployment is None else deployment["metadata"].get("uid")
        return Known(frozenset(self.pods.get(key, ())), uid)

    def drop_gone(self, key: api.Key, before: Known, alive: Known) -> bool:
        """Takes out what was known before a read and was not in it; kopf tells no deletion of a time without watch."""
        pods = self.pods.get(key, {})
        gone = [uid for uid in pods if uid in before.pods - alive.pods]
        for uid in gone:
            del pods[uid]
        if not pods:
            self.pods.pop(key, None)
        now_known = self.known(key).deployment
        lost = now_known is not None and now_known == before.deployment != alive.deployment
        if lost:
            del self.deployments[key]
        return bool(gone) or lost

    def forget(self, key: api.Key) -> None:
        for store in (self.services, self.deployments, self.pods):
            store.pop(key, None)


def _slim(body: api.Body) -> api.Body:
    """managedFields are half of an object and nobody reads them."""
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    return {**body, "metadata": metadata}
