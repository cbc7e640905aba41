"""Does a live object already carry an intent? Pure; the reason why a second reconcile writes nothing.

The API server adds defaults and other managers add fields of their own, so the intent is looked for *inside* the live
object. What this cannot see, a field that we applied once and dropped since, is seen by the hash annotation.
"""

from __future__ import annotations

from typing import Any

from .quantities import same_quantity

# Lists that the API merges by key; all others are taken whole. The first name that all items have is the key.
MERGE_KEYS: dict[str, tuple[tuple[str, ...], ...]] = {
    "containers": (("name",),),
    "initContainers": (("name",),),
    "volumes": (("name",),),
    "env": (("name",),),
    "imagePullSecrets": (("name",),),
    "resourceClaims": (("name",),),
    "claims": (("name",),),
    "schedulingGates": (("name",),),
    "hostAliases": (("ip",),),
    "groups": (("name",),),
    "volumeMounts": (("mountPath",),),
    "ownerReferences": (("uid",),),
    "conditions": (("type",),),
    "ports": (("containerPort", "protocol"), ("port", "protocol")),
    "topologySpreadConstraints": (("topologyKey", "whenUnsatisfiable"),),
}


def difference(intent: Any, live: Any, path: str = "") -> str | None:
    """The first field of the intent that the live object does not carry, or None."""
    if isinstance(intent, dict):
        if not isinstance(live, dict):
            return path or "."
        for name, value in intent.items():
            if name not in live:
                if value is None or value is False or value in ("", {}, []):
                    continue  # the API server does not send these back
                return f"{path}.{name}"
            found = difference(value, live[name], f"{path}.{name}")
            if found is not None:
                return found
        return None
    if isinstance(intent, list):
        return _list_difference(intent, live, path)
    return None if intent == live or same_quantity(intent, live) else path


def _list_difference(intent: list[Any], live: Any, path: str) -> str | None:
    if not isinstance(live, list):
        return path
    key = _merge_key(intent, path.rpartition(".")[2])
    if key is None:
        if len(intent) != len(live):
            return path
        pairs = list(zip(intent, live, strict=True))
    else:
        by_key = {tuple(item.get(name) for name in key): item for item in live if isinstance(item, dict)}
        pairs = [(item, by_key.get(tuple(item[name] for name in key))) for item in intent]
    for index, (wanted, found) in enumerate(pairs):
        different = difference(wanted, found, f"{path}[{index}]")
        if different is not None:
            return different
    return None


def _merge_key(items: list[Any], field: str) -> tuple[str, ...] | None:
    for key in MERGE_KEYS.get(field, ()):
        if all(isinstance(item, dict) and all(name in item for name in key) for item in items):
            return key
    return None
