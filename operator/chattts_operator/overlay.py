"""podTemplateOverlay: a strategic merge over the pod template, by an allow-list. Pure; knows no other field of spec.

What is not on the list is refused with its path. An overlay adds or changes, it never takes away (`null`, `$patch`),
and nothing of it can lower security: no host namespace or path, no privilege, no token, no other security context.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from .compare import MERGE_KEYS

OURS = {"server": "containers", "fetch": "initContainers"}  # our containers, and where they stand; others are added
OUR_VOLUMES = ("model", "tmp", "shared-memory", "voices", "api-keys")
OUR_MOUNTS = ("/model", "/tmp", "/dev/shm", "/voices", "/etc/chattts/keys", "/cache")
OUR_VARIABLES = "CHATTTS_"
OUR_LABELS = ("app.kubernetes.io/", "chattts.dev/")

POD_FIELDS: Mapping[str, type] = {
    "affinity": dict,
    "containers": list,
    "dnsConfig": dict,
    "dnsPolicy": str,
    "hostAliases": list,
    "imagePullSecrets": list,
    "initContainers": list,
    "nodeSelector": dict,
    "priorityClassName": str,
    "resourceClaims": list,
    "runtimeClassName": str,
    "schedulerName": str,
    "schedulingGates": list,
    "tolerations": list,
    "topologySpreadConstraints": list,
    "volumes": list,
}
SERVER_FIELDS: Mapping[str, type] = {
    "name": str,
    "env": list,
    "envFrom": list,
    "volumeMounts": list,
    "resources": dict,
    "startupProbe": dict,
    "readinessProbe": dict,
    "livenessProbe": dict,
}
ADDED_FIELDS: Mapping[str, type] = {
    **SERVER_FIELDS,
    "args": list,
    "command": list,
    "image": str,
    "imagePullPolicy": str,
    "lifecycle": dict,
    "ports": list,
    "restartPolicy": str,
    "securityContext": dict,
    "workingDir": str,
}
# A user of its own is all that an added container may choose; the rest is what ours has.
SECURITY_FIELDS = frozenset({"runAsUser", "runAsGroup"})
_VOLUMES = ("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "secret")
VOLUME_SOURCES: Mapping[str, type] = {"name": str, **dict.fromkeys(_VOLUMES, dict)}
KINDS: Mapping[type, str] = {dict: "an object", list: "a list", str: "a text"}

LOCKED_DOWN: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def merged(template: dict[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """The template with the overlay over it. The overlay has passed `problems_of`."""
    if not overlay:
        return template
    known = {item["name"] for group in ("containers", "initContainers") for item in template["spec"].get(group) or []}
    result: dict[str, Any] = _merge(template, overlay, "")
    for group in ("containers", "initContainers"):
        for container in result["spec"].get(group) or []:
            if container["name"] not in known:
                container["securityContext"] = {**(container.get("securityContext") or {}), **LOCKED_DOWN}
    return result


def problems_of(overlay: Mapping[str, Any], path: str) -> list[str]:
    """Each begins with the path of the field."""
    found = [*_fields(overlay, {"metadata": dict, "spec": dict}, path), *_removals(overlay, path)]
    if found:
        return found
    metadata, pod = overlay.get("metadata", {}), overlay.get("spec", {})
    found += _fields(metadata, {"labels": dict, "annotations": dict}, f"{path}.metadata")
    found += _fields(pod, POD_FIELDS, f"{path}.spec")
    if found:  # what lies below cannot be read
        return found
    found += _labels(metadata, f"{path}.metadata")
    for field in POD_FIELDS:
        for place, item in _items(pod, field, f"{path}.spec"):
            if not isinstance(item, dict) or not all(isinstance(item.get(name), str) for name in _key(field)):
                found.append(f"{place} must be an object{_with_key(field)}")
            elif field in ("containers", "initContainers"):
                found += _container(item, place, field)
            elif field == "volumes":
                found += _volume(item, place)
    return found


def _merge(base: Any, over: Any, field: str) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        result = dict(base)
        for name, value in over.items():
            result[name] = _merge(base[name], value, name) if name in base else copy.deepcopy(value)
        return result
    if isinstance(base, list) and isinstance(over, list):
        return _merge_lists(base, over, _key(field))
    return copy.deepcopy(over)


def _merge_lists(base: list[Any], over: list[Any], key: tuple[str, ...]) -> list[Any]:
    """Items with the same key are merged; without a key (tolerations) what is new is appended."""
    result = list(base)
    for item in over:
        same = [i for i, old in enumerate(result) if _is_same(old, item, key)]
        if same:
            result[same[0]] = _merge(result[same[0]], item, "")
        else:
            result.append(copy.deepcopy(item))
    return result


def _is_same(old: Any, new: Any, key: tuple[str, ...]) -> bool:
    return all(old.get(name) == new.get(name) for name in key) if key else bool(old == new)


def _key(field: str) -> tuple[str, ...]:
    return MERGE_KEYS.get(field, ((),))[0]


def _with_key(field: str) -> str:
    return f" with {' and '.join(_key(field))}" if _key(field) else ""


def _fields(value: Mapping[str, Any], allowed: Mapping[str, type], path: str) -> Iterator[str]:
    for name, item in value.items():
        if name not in allowed:
            known = ", ".join(sorted(allowed))
            yield f"{path}.{name} is not on the list of what an overlay may set ({known}): remove it"
        elif not isinstance(item, allowed[name]):
            yield f"{path}.{name} must be {KINDS[allowed[name]]}"


def _labels(metadata: Mapping[str, Any], path: str) -> Iterator[str]:
    for field in ("labels", "annotations"):
        for name, value in metadata.get(field, {}).items():
            if not isinstance(value, str):
                yield f"{path}.{field}.{name} must be a text"
            elif field == "labels" and name.startswith(OUR_LABELS):
                yield f"{path}.labels.{name} belongs to the operator: choose another name"


def _removals(value: Any, path: str) -> Iterator[str]:
    if value is None:
        yield f"{path} is null: an overlay adds or changes, it cannot take away"
    elif isinstance(value, dict):
        for name, item in value.items():
            if name.startswith("$"):
                yield f"{path}.{name} is a directive: an overlay adds or changes, it cannot take away"
            else:
                yield from _removals(item, f"{path}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _removals(item, f"{path}[{index}]")


def _items(parent: Mapping[str, Any], field: str, path: str) -> Iterator[tuple[str, Any]]:
    """Each item of a list with its place; nothing where the field is no list."""
    items = parent.get(field)
    for index, item in enumerate(items if isinstance(items, list) else []):
        key = _key(field)
        named = ",".join(str(item.get(name)) for name in key) if key and isinstance(item, dict) else str(index)
        yield f"{path}.{field}[{named}]", item


def _container(container: Mapping[str, Any], path: str, group: str) -> list[str]:
    ours = container["name"] in OURS
    found = [*_fields(container, SERVER_FIELDS if ours else ADDED_FIELDS, path)]
    if OURS.get(container["name"], group) != group:
        found.append(f"{path} has the name of a container of the operator: choose another")
    for field in ("env", "volumeMounts", "ports"):
        for place, item in _items(container, field, path):
            if not isinstance(item, dict) or (field != "ports" and not isinstance(item.get(_key(field)[0]), str)):
                found.append(f"{place} must be an object{_with_key(field) if field != 'ports' else ''}")
            elif ours and field == "env" and item["name"].startswith(OUR_VARIABLES):
                found.append(f"{place} is set by the operator from the other fields of spec: use those")
            elif ours and field == "volumeMounts" and _is_our_place(item["mountPath"]):
                found.append(f"{place} is a place of the operator: choose another")
            elif field == "ports" and "hostPort" in item:
                found.append(f"{place}.hostPort would open a port of the node: use a Service")
    if ours:
        found += _env_from(container, path)
    return [*found, *_security(container.get("securityContext"), f"{path}.securityContext")]


def _env_from(container: Mapping[str, Any], path: str) -> Iterator[str]:
    """The names are in an object that nobody sees here; with a prefix none of them can be one of ours."""
    for place, item in _items(container, "envFrom", path):
        prefix = item.get("prefix", "") if isinstance(item, dict) else None
        if not isinstance(prefix, str):
            yield f"{place} must be an object with a text as prefix"
        elif prefix.startswith(OUR_VARIABLES) or OUR_VARIABLES.startswith(prefix):
            yield f"{place}.prefix is needed and must not begin as {OUR_VARIABLES} does, which the operator sets"


def _is_our_place(path: str) -> bool:
    return any(path == ours or path.startswith(f"{ours}/") for ours in OUR_MOUNTS)


def _security(context: Any, path: str) -> Iterator[str]:
    for name, value in context.items() if isinstance(context, dict) else ():
        if name not in SECURITY_FIELDS:
            yield f"{path}.{name} would change security: added containers run as ours, but for runAsUser and runAsGroup"
        elif isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            yield f"{path}.{name} must be a number greater than 0: root is refused"


def _volume(volume: Mapping[str, Any], path: str) -> Iterator[str]:
    yield from _fields(volume, VOLUME_SOURCES, path)
    if volume["name"] in OUR_VOLUMES:
        yield f"{path} is a volume of the operator: choose another name"
