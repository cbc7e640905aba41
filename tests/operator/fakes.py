"""Fakes that behave: an event loop with virtual time, and an API server with server-side apply.

The API server keeps owners of fields, versions, generations and uids, fills in defaults, normalises quantities and
refuses what the real one refuses; tests/operator/test_api_server.py compares the two where it matters.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import selectors
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from chattts_operator import api
from chattts_operator.kube import KubeError
from chattts_operator.quantities import parse_quantity

T = TypeVar("T")
Path = tuple[Any, ...]  # names of a dict, ("k", names, values) for an item of a list with keys

LIST_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "ownerReferences": ("uid",),
    "conditions": ("type",),
    "groups": ("name",),
    "imagePullSecrets": ("name",),
    "resourceClaims": ("name",),
    "claims": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}


# --- virtual time ---


class _Selector(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("everything waits and no timer is set: a deadlock")
            self.loop.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes only when all wait, and then at once."""

    def __init__(self) -> None:
        self.now = 1000.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


# --- the API server ---


class Crash(BaseException):
    """The operator is killed here. Nothing may catch it."""


class FakeKube:
    def __init__(self, *served: api.Kind) -> None:
        self.objects: dict[tuple[api.Kind, str, str], api.Body] = {}
        self.served = frozenset(served)
        self.writes: list[tuple[str, str, str]] = []  # verb, kind, name; Events and Leases left out
        self.events: list[api.Body] = []
        self.crash_at: int | None = None  # number of the write at which the operator is killed
        self.refuse: Callable[[str, api.Kind], KubeError | None] = lambda verb, kind: None
        self.before_write: Callable[[], None] = lambda: None
        self.drop: Callable[[api.Kind, api.Body], None] = lambda kind, body: None  # fields of a feature that is off
        self._owners: dict[tuple[api.Kind, str, str], dict[str, set[Path]]] = {}
        self.versions = 0  # of the newest write that changed something
        self._uids = itertools.count(1)

    # What the operator calls.

    async def get(self, kind: api.Kind, namespace: str, name: str) -> api.Body | None:
        await asyncio.sleep(0)
        self._check("get", kind)
        return copy.deepcopy(self.objects.get((kind, namespace, name)))

    async def list(self, kind: api.Kind, namespace: str | None = None, selector: str | None = None) -> list[api.Body]:
        await asyncio.sleep(0)
        self._check("list", kind)
        wanted = dict(part.split("=") for part in (selector or "").split(",") if part)
        return [
            copy.deepcopy(body)
            for (of_kind, of_namespace, _), body in self.objects.items()
            if of_kind == kind
            and namespace in (None, of_namespace)
            and wanted.items() <= (body["metadata"].get("labels") or {}).items()
        ]

    async def serves(self, kind: api.Kind) -> bool:
        return kind not in api.OPTIONAL_KINDS or kind in self.served

    async def apply(self, kind: api.Kind, body: api.Body, force: bool) -> api.Body:
        return await self._write("apply", kind, body, lambda: self._apply(kind, body, api.MANAGER, force, "spec"))

    async def apply_status(self, body: api.Body) -> api.Body:
        kind = api.TTS_SERVICE
        return await self._write(
            "status", kind, body, lambda: self._apply(kind, body, api.STATUS_MANAGER, True, "status")
        )

    async def delete(self, kind: api.Kind, namespace: str, name: str, uid: str) -> None:
        def effect() -> api.Body:
            live = self.objects.get((kind, namespace, name))
            if live is not None and live["metadata"]["uid"] == uid:
                self.remove(kind, namespace, name)
            return {}

        await self._write("delete", kind, {"metadata": {"namespace": namespace, "name": name}}, effect)

    async def create(self, kind: api.Kind, body: api.Body) -> api.Body:
        await asyncio.sleep(0)
        self._check("create", kind)
        key = _key(kind, body)
        if key in self.objects:
            raise KubeError(409, "already exists")
        self._store(key, copy.deepcopy(body))
        if kind == api.EVENT:
            self.events.append(body)
        return copy.deepcopy(self.objects[key])

    async def replace(self, kind: api.Kind, body: api.Body) -> api.Body:
        await asyncio.sleep(0)
        self._check("replace", kind)
        key = _key(kind, body)
        live = self.objects.get(key)
        if live is None:
            raise KubeError(404, "not found")
        if body["metadata"].get("resourceVersion") != live["metadata"]["resourceVersion"]:
            raise KubeError(409, "the object has been modified")
        self._store(key, copy.deepcopy(body))
        return copy.deepcopy(self.objects[key])

    # What tests do as somebody else.

    def put(self, kind: api.Kind, body: api.Body) -> api.Body:
        """Creates or replaces as a user would; the metadata that the server fills is kept."""
        key = _key(kind, body)
        old = self.objects.get(key)
        body = copy.deepcopy(body)
        if old is not None:
            body["metadata"] = {**old["metadata"], **body["metadata"]}
        self._store(key, body)
        return self.objects[key]

    def edit(self, kind: api.Kind, key: api.Key, change: Callable[[api.Body], None]) -> None:
        place = self.place(kind, key)
        body = copy.deepcopy(self.objects[place])
        change(body)
        self._store(place, body)

    def at(self, kind: api.Kind, key: api.Key) -> api.Body:
        """The object of a TTSService: itself, or its child of that kind."""
        return self.objects[self.place(kind, key)]

    def has(self, kind: api.Kind, key: api.Key) -> bool:
        return self.place(kind, key) in self.objects

    @staticmethod
    def place(kind: api.Kind, key: api.Key) -> tuple[api.Kind, str, str]:
        return kind, key.namespace, api.child_name(kind, key.name)

    def end_job(self, key: api.Key, outcome: str, at: str = "2027-01-15T08:00:00Z", message: str = "") -> None:
        """What the Job controller says in the end: Complete or Failed."""
        condition = {"type": outcome, "status": "True", "lastTransitionTime": at, "message": message}
        self.edit(api.JOB, key, lambda body: body.update(status={"conditions": [condition]}))

    def remove(self, kind: api.Kind, namespace: str, name: str) -> None:
        self.objects.pop((kind, namespace, name), None)
        self._owners.pop((kind, namespace, name), None)

    def collect_garbage(self) -> None:
        alive = {body["metadata"]["uid"] for body in self.objects.values()}
        for key, body in list(self.objects.items()):
            owners = [item["uid"] for item in body["metadata"].get("ownerReferences") or []]
            if owners and not alive & set(owners):
                self.remove(*key)

    def snapshot(self) -> dict[Any, api.Body]:
        """All that matters in the end: without versions, times and uids of children."""
        result = {}
        for key, body in self.objects.items():
            if key[0] not in (api.EVENT, api.LEASE):
                metadata = {k: v for k, v in body["metadata"].items() if k not in ("resourceVersion", "uid")}
                result[key] = _without_times({**body, "metadata": metadata})
        return result

    # How it behaves.

    async def _write(self, verb: str, kind: api.Kind, body: api.Body, effect: Callable[[], api.Body]) -> api.Body:
        await asyncio.sleep(0)
        self.before_write()
        self._check(verb, kind)
        if self.crash_at is not None and len(self.writes) == self.crash_at:
            raise Crash
        result = copy.deepcopy(effect())
        self.writes.append((verb, kind.kind, body["metadata"]["name"]))
        return result

    def _check(self, verb: str, kind: api.Kind) -> None:
        if (error := self.refuse(verb, kind)) is not None:
            raise error
        if kind in api.OPTIONAL_KINDS and kind not in self.served:
            raise KubeError(404, "the server could not find the requested resource")

    def _apply(self, kind: api.Kind, body: api.Body, manager: str, force: bool, part: str) -> api.Body:
        key = _key(kind, body)
        live, uid = self.objects.get(key), body["metadata"].get("uid")
        if live is None:
            if uid or part == "status":
                raise KubeError(404 if part == "status" else 409, "uid mismatch: the object does not exist")
            live = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": dict(body["metadata"])}
        elif uid and uid != live["metadata"]["uid"]:
            raise KubeError(422, "metadata.uid: field is immutable")
        intent = {"status": body["status"]} if part == "status" else _without(body, "status")
        wanted = {path: value for path, value in _leaves(intent) if path[:1] != ("metadata",) or _mergeable(path)}
        owners = self._owners.get(key, {})
        if not force:
            self._refuse_conflicts(wanted, live, owners, manager)
        merged = copy.deepcopy(live)
        others = set().union(*(paths for name, paths in owners.items() if name != manager))
        for path in sorted(owners.get(manager, set()) - wanted.keys() - others, key=_is_list_key):
            _remove(merged, path)
        for path, value in wanted.items():
            _set(merged, path, copy.deepcopy(value))
        self._check_immutable(kind, live, merged)
        self._owners.setdefault(key, {})[manager] = set(wanted)
        self._store(key, merged)
        return self.objects[key]

    def _refuse_conflicts(
        self, wanted: dict[Path, Any], live: api.Body, owners: dict[str, set[Path]], manager: str
    ) -> None:
        """An object nobody applied belongs to somebody in every field."""
        for path, value in wanted.items():
            found = _get(live, path)
            mine = path in owners.get(manager, set())
            if found is not None and found != value and not mine and live["metadata"].get("uid"):
                raise KubeError(409, f"conflict with another manager: {path}")

    def _check_immutable(self, kind: api.Kind, live: api.Body, merged: api.Body) -> None:
        if kind == api.DEPLOYMENT and "spec" in live and live["spec"]["selector"] != merged["spec"]["selector"]:
            raise KubeError(422, "spec.selector: field is immutable")
        if kind == api.JOB and "spec" in live and live["spec"]["template"] != merged["spec"]["template"]:
            raise KubeError(422, "spec.template: field is immutable")
        if kind == api.CLAIM and "spec" in live:
            old, new = live["spec"], merged["spec"]
            fixed = [
                name for name in ("accessModes", "storageClassName", "volumeMode") if old.get(name) != new.get(name)
            ]
            if fixed:
                raise KubeError(422, f"spec.{fixed[0]}: spec is immutable after creation except resources.requests")
            if _storage(old) != _storage(new) and (live.get("status") or {}).get("phase") != "Bound":
                raise KubeError(422, "spec is immutable after creation except resources.requests for bound claims")
            if parse_quantity(_storage(new)) < parse_quantity(_storage(old)):
                raise KubeError(422, "spec.resources.requests.storage: field can not be less than status.capacity")

    def _store(self, key: tuple[api.Kind, str, str], body: api.Body) -> None:
        kind = key[0]
        old = self.objects.get(key)
        body.setdefault("apiVersion", kind.api_version)
        body.setdefault("kind", kind.kind)
        _fill_defaults(kind, body)
        self.drop(kind, body)
        metadata = body["metadata"]
        metadata.setdefault("uid", f"uid-{next(self._uids)}")
        if old is not None and _without(old, "metadata") == _without(body, "metadata") and _same_metadata(old, body):
            return  # a write that changes nothing keeps the version
        changed = old is None or old.get("spec") != body.get("spec")
        metadata["generation"] = (old or {}).get("metadata", {}).get("generation", 0) + (1 if changed else 0)
        self.versions += 1
        metadata["resourceVersion"] = str(self.versions)
        self.objects[key] = body


def _fill_defaults(kind: api.Kind, body: api.Body) -> None:
    if kind == api.CLAIM:
        body["spec"].setdefault("volumeMode", "Filesystem")
        body["spec"].setdefault("storageClassName", "standard")
        body.setdefault("status", {"phase": "Pending"})
    if kind == api.NETWORK_POLICY:
        for rule in (*body["spec"].get("ingress", ()), *body["spec"].get("egress", ())):
            for port in rule.get("ports", ()):
                port.setdefault("protocol", "TCP")
    if kind == api.JOB:
        body["spec"].setdefault("completions", 1)
        body["spec"].setdefault("parallelism", 1)
        body["spec"].setdefault("suspend", False)
    if kind == api.SERVICE:
        spec = body["spec"]
        spec.setdefault("clusterIP", "10.96.0.10")
        spec.setdefault("sessionAffinity", "None")
    if kind == api.DEPLOYMENT:
        spec = body["spec"]
        spec.setdefault("replicas", 1)
        pod = spec["template"]["spec"]
        pod.setdefault("dnsPolicy", "ClusterFirst")
        pod.setdefault("restartPolicy", "Always")
        for container in pod["containers"]:
            container.setdefault("terminationMessagePath", "/dev/termination-log")
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if probe in container:
                    container[probe].setdefault("successThreshold", 1)
                    container[probe]["httpGet"].setdefault("scheme", "HTTP")
            for part in ("requests", "limits"):
                quantities = (container.get("resources") or {}).get(part) or {}
                for name, value in quantities.items():
                    quantities[name] = {"0.5": "500m", "1000m": "1", "1024Mi": "1Gi"}.get(str(value), str(value))
            for variable in container.get("env", []):
                if variable.get("value") == "":
                    del variable["value"]


def _storage(spec: api.Body) -> str:
    return str(spec["resources"]["requests"]["storage"])


def _same_metadata(left: api.Body, right: api.Body) -> bool:
    hidden = ("resourceVersion", "generation")
    return _without(left["metadata"], *hidden) == _without(right["metadata"], *hidden)


def _key(kind: api.Kind, body: api.Body) -> tuple[api.Kind, str, str]:
    return kind, body["metadata"]["namespace"], body["metadata"]["name"]


def _without(body: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in names}


def _mergeable(path: Path) -> bool:
    return len(path) > 1 and path[1] in ("labels", "annotations", "ownerReferences")


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, (*path, name))
    elif isinstance(value, list) and value and (keys := LIST_KEYS.get(path[-1] if path else "")):
        for item in value:
            yield from _leaves(item, (*path, ("k", keys, tuple(item[name] for name in keys))))
    else:
        yield path, value


def _child(node: Any, step: Any) -> Any:
    if isinstance(step, tuple):
        _, names, values = step
        items = node if isinstance(node, list) else []
        return next((item for item in items if tuple(item.get(name) for name in names) == values), None)
    return node.get(step) if isinstance(node, dict) else None


def _get(node: Any, path: Path) -> Any:
    for step in path:
        node = _child(node, step)
        if node is None:
            return None
    return node


def _set(node: Any, path: Path, value: Any) -> None:
    for step, following in zip(path, (*path[1:], None), strict=True):
        if following is None:
            node[step] = value
            return
        found = _child(node, step)
        if found is None:
            found = [] if isinstance(following, tuple) else {}
            if isinstance(step, tuple):
                found = dict(zip(step[1], step[2], strict=True))
                node.append(found)
            else:
                node[step] = found
        node = found


def _is_list_key(path: Path) -> bool:
    """The field by which an item of a list is known."""
    return len(path) > 1 and isinstance(path[-2], tuple) and path[-1] in path[-2][1]


def _remove(node: Any, path: Path) -> None:
    """Takes the leaf, and what is left empty on the way to it. An item goes when only its key is left."""
    parents = [node]
    for step in path[:-1]:
        node = _child(node, step)
        if node is None:
            return
        parents.append(node)
    if not _is_list_key(path):
        parents[-1].pop(path[-1], None)
    for parent, step in reversed(list(zip(parents, path[:-1], strict=False))):
        found = _child(parent, step)
        if isinstance(step, tuple):
            if found is not None and set(found) <= set(step[1]):
                parent.remove(found)
        elif found in ({}, []):
            del parent[step]


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in ("lastTransitionTime", "firstTimestamp")}
    if isinstance(value, list):
        return [_without_times(item) for item in value]
    return value


# --- bodies ---


def tts_service(name: str = "demo", uid: str = "uid-demo", **spec: Any) -> api.Body:
    return {
        "apiVersion": api.API_VERSION,
        "kind": "TTSService",
        "metadata": {"namespace": "default", "name": name, "uid": uid, "generation": 1, "resourceVersion": "1"},
        "spec": {"model": {"source": "PersistentVolumeClaim", "claimName": "weights"}, **spec},
    }


def pod(
    name: str,
    service: str = "demo",
    ready_at: str | None = None,
    scheduled_at: str | None = None,
    unschedulable: str = "",
    labels: dict[str, str] | None = None,
) -> api.Body:
    conditions = []
    if unschedulable:
        conditions.append(
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": unschedulable,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        )
    elif scheduled_at or ready_at:
        at = scheduled_at or ready_at
        conditions.append({"type": "PodScheduled", "status": "True", "lastTransitionTime": at})
    if ready_at:
        conditions.append({"type": "Ready", "status": "True", "lastTransitionTime": ready_at})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": "default",
            "name": name,
            "uid": f"uid-{name}",
            "labels": labels or api.labels(service),
        },
        "status": {"phase": "Running" if ready_at else "Pending", "conditions": conditions},
    }
