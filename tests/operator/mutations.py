"""A campaign in the manner of Acto: every field of the CRD set, changed and unset on a service that runs.

After each change the children must be those of a service that was made with that spec; one that cannot be used must
leave them as they are; and then nothing is written any more. On the API server that behaves, in virtual time.
`python -m tests.operator.mutations` writes docs/mutations.md.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from chattts_operator import api
from tests.operator.test_invariants import remains, run, world_of
from tests.operator.world import EVERY_CHILD, KEY, World

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "mutations.md"
UNSET = object()
MOUNTED: dict[str, Any] = {"model": {"source": "PersistentVolumeClaim", "claimName": "weights"}}
FETCHED: dict[str, Any] = {"model": {**EVERY_CHILD["model"], "cache": {"type": "EmptyDir"}}}
# The service that a field is changed on, where it is another one than MOUNTED: fields that are only read with others.
STARTS: dict[str, dict[str, Any]] = {
    "replicas": {**MOUNTED, "autoscaling": {"mode": "None"}},
    "image": {**MOUNTED, "image": {"repository": "registry.example/own", "tag": "1"}},
    "server.keyAudioSecondsPerMinute": {**MOUNTED, "server": {"apiKeysSecretRef": {"name": "keys"}}},
    "model.claimName": MOUNTED,
    "model.hostPath": {"model": {"source": "HostPath", "hostPath": "/weights"}},
    "model.image": {"model": {"source": "ImageVolume", "image": "registry.example/weights:1"}},
    "model.path": MOUNTED,
    "model.cache.hostPath": {"model": {**EVERY_CHILD["model"], "cache": {"type": "HostPath", "hostPath": "/cache"}}},
    "model.cache.reclaimPolicy": EVERY_CHILD,
    "model": FETCHED,
    "autoscaling.hold": {**MOUNTED, "autoscaling": {"hold": {"until": "2027-01-16T00:00:00Z", "by": "ana"}}},
    "networking.networkPolicy": {**MOUNTED, "networking": {"networkPolicy": {"mode": "Restricted"}}},
}
PEER = {"podSelector": {"matchLabels": {"app": "gateway"}}}
# What a schema's type does not tell. The last one of some is one that cannot be used.
VALUES: dict[str, list[Any]] = {
    "image.repository": ["registry.example/other", "registry.example:5000/a/b"],
    "image.tag": ["2"],
    "image.digest": ["sha256:" + "a" * 64],
    "image.cudaVersion": ["13.0"],
    "image.pullSecrets": [[{"name": "a"}], [{"name": "a"}, {"name": "b"}]],
    "model.repository": ["other/Weights"],
    "model.revision": ["f" * 40],
    "model.endpoint": ["https://mirror.example"],
    "model.tokenSecretRef.name": ["token"],
    "model.tokenSecretRef.key": ["key"],
    "model.claimName": ["other"],
    "model.hostPath": ["/other"],
    "model.image": ["registry.example/weights:2"],
    "model.path": ["sub/folder"],
    "model.cache.hostPath": ["/other"],
    "model.cache.size": ["20Gi", "5Gi"],
    "model.cache.storageClassName": ["fast"],
    "server.apiKeysSecretRef.name": ["keys", "others"],
    "server.extraEnv": [[{"name": "A", "value": "1"}], [{"name": "CHATTTS_PORT", "value": "1"}]],
    "voices.configMapRef.name": ["voices"],
    "voices.claimName": ["voices"],
    "accelerator.resourceName": ["nvidia.com/mig-1g.10gb"],
    "accelerator.resourceClaimTemplateName": ["gpu"],
    "accelerator.minDriverVersion": ["580.65"],
    "accelerator.sharedMemory": ["2Gi"],
    "resources.requests": [{"cpu": "2", "memory": "4Gi"}, {"nvidia.com/gpu": "1"}],
    "resources.limits": [{"cpu": "4"}, {"cpu": "zwei"}],
    "scheduling.nodeSelector": [{"pool": "gpu"}, {"pool": "other", "zone": "a"}],
    "scheduling.tolerations": [[{"key": "spot", "operator": "Exists"}]],
    "scheduling.affinity": [{"nodeAffinity": {}}],
    "scheduling.topologySpreadConstraints": [
        [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]
    ],
    "scheduling.priorityClassName": ["high"],
    "scheduling.runtimeClassName": ["nvidia"],
    "scheduling.schedulerName": ["volcano"],
    "autoscaling.targets.qpsPerReplica": ["5.5", "0.001"],
    "autoscaling.schedules": [
        [{"name": "day", "cron": "0 8 * * *", "durationSeconds": 3600, "minReplicas": 2}],
        [{"name": "day", "cron": "never at all today", "durationSeconds": 3600, "minReplicas": 2}],
    ],
    "autoscaling.hold.until": ["2027-02-01T00:00:00Z"],
    "autoscaling.hold.by": ["ben"],
    "networking.service.annotations": [{"a": "1"}, {"b": "2"}],
    "networking.networkPolicy.ingressFrom": [[PEER]],
    "networking.networkPolicy.egressTo": [[PEER]],
    "monitoring.labels": [{"team": "speech"}],
    "podTemplateOverlay": [{"metadata": {"labels": {"team": "speech"}}}, {"spec": {"hostNetwork": True}}],
}
# What is fixed at first sight stays when the field is taken away again: the pods would restart for nothing.
KEPT = {("monitoring.monitor", "Annotations")}
NEEDED = {"image.repository"}  # the CRD lets nobody take it away alone (a tag without it)


@dataclass(slots=True)
class Outcome:
    """Of one field: how its values ended, and what went wrong."""

    field: str
    converged: int = 0
    refused: int = 0  # InvalidSpec, and every child as it was
    wrong: list[str] = field(default_factory=list)


def fields() -> dict[str, Mapping[str, Any]]:
    """Path in spec -> its schema, of all fields that hold a value."""
    crd = yaml.safe_load((ROOT / "manifests" / "crd.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return dict(_leaves(schema, ""))


def _leaves(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if "properties" not in schema:
        yield path, schema
    for name, child in (schema.get("properties") or {}).items():
        yield from _leaves(child, f"{path}.{name}" if path else name)


def values_of(path: str, schema: Mapping[str, Any]) -> list[Any]:
    """KeyError: nobody has said what this field may be."""
    if path in VALUES:
        return VALUES[path]
    if "enum" in schema:
        return list(schema["enum"])
    if schema.get("type") == "integer":
        middle = schema["minimum"] + 1
        return list(dict.fromkeys([schema["minimum"], middle, schema["maximum"]]))
    raise KeyError(path)


def start_of(path: str) -> dict[str, Any]:
    """The most special one that holds the field."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        if (found := STARTS.get(".".join(parts[:length]))) is not None:
            return copy.deepcopy(found)
    return copy.deepcopy(MOUNTED)


def with_value(spec: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    changed: dict[str, Any] = copy.deepcopy(dict(spec))
    *above, last = path.split(".")
    place = changed
    for name in above:
        place = place.setdefault(name, {})
    if value is UNSET:
        place.pop(last, None)
    else:
        place[last] = copy.deepcopy(value)
    return changed


def is_set(spec: Mapping[str, Any], path: str) -> bool:
    place: Any = spec
    for name in path.split("."):
        if not isinstance(place, dict) or name not in place:
            return False
        place = place[name]
    return True


def children(world: World) -> dict[Any, api.Body]:
    found = {place: body for place, body in remains(world).items() if place[0] != api.TTS_SERVICE}
    for body in found.values():
        body.pop("status", None)
    return {place: _in_order(body) for place, body in found.items()}


def _in_order(value: Any) -> Any:
    """Lists that the API server keeps by name: a new item comes last there, and its place means nothing."""
    if isinstance(value, dict):
        return {name: _in_order(item) for name, item in value.items()}
    if isinstance(value, list) and all(isinstance(item, dict) and "name" in item for item in value):
        return sorted((_in_order(item) for item in value), key=lambda item: (item["name"], item.get("mountPath", "")))
    return value


def edit(world: World, spec: Mapping[str, Any]) -> None:
    world.kube.edit(api.TTS_SERVICE, KEY, lambda body: body.update(spec=copy.deepcopy(dict(spec))))
    run(world)


def is_refused(world: World) -> bool:
    return bool(world.condition("Ready")["reason"] == "InvalidSpec")


def mutate(path: str, schema: Mapping[str, Any]) -> Outcome:
    """Set from the start, back to the start; and taken away where the start has it."""
    outcome = Outcome(path)
    start = start_of(path)
    for value in [*values_of(path, schema), *([UNSET] if is_set(start, path) and path not in NEEDED else [])]:
        told = "unset" if value is UNSET else json.dumps(value)
        try:
            _one(outcome, path, start, value, told)
        except Exception as error:
            outcome.wrong.append(f"{told}: {type(error).__name__}: {error}")
    return outcome


def _one(outcome: Outcome, path: str, start: dict[str, Any], value: Any, told: str) -> None:
    changed = with_value(start, path, value)
    world, fresh = world_of(start), world_of(changed)
    run(world)
    before = children(world)
    run(fresh)
    edit(world, changed)
    refused = is_refused(fresh)
    idle = refused or changed.get("managementPolicy") == "Paused"
    after = children(world)
    if is_refused(world) != refused or after != (before if idle else children(fresh)):
        outcome.wrong.append(f"{told}: not what a new service has")
    world.kube.writes.clear()
    for _ in range(2):
        world.now += 3600
        world.reconcile()
    if world.kube.writes:
        outcome.wrong.append(f"{told}: writes again: {world.kube.writes}")
    edit(world, start)
    if children(world) != (after if (path, value) in [*KEPT] else before):
        outcome.wrong.append(f"{told}: does not come back")
    outcome.refused += refused
    outcome.converged += not refused


def table(outcomes: list[Outcome]) -> str:
    lines = [
        "# What was changed on a running service",
        "",
        "Every field of a TTSService is set, changed and taken away on a service that runs",
        "(`tests/operator/mutations.py`, on an API server that behaves, in virtual time; `make test` does it again and",
        "compares this table). After each change the children must be those of a service that was made with that spec,",
        "then nothing may be written any more, and back at the start they must be as before. *Converged*: values after",
        "which that held. *Refused*: values that cannot be used; condition Ready says so and no child changes.",
        "",
        "| field | converged | refused |",
        "|---|---|---|",
        *(f"| {outcome.field} | {outcome.converged} | {outcome.refused} |" for outcome in outcomes),
        "",
        f"{len(outcomes)} fields, {sum(outcome.converged + outcome.refused for outcome in outcomes)} changes.",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    outcomes = [mutate(path, schema) for path, schema in fields().items()]
    wrong = [f"{outcome.field} {text}" for outcome in outcomes for text in outcome.wrong]
    print("\n".join(wrong), file=sys.stderr)
    if not wrong:
        TABLE.write_text(table(outcomes))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
