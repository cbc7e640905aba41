"""What every child has: name, labels, owner and the hash of its intent. Knows nothing of the kinds' insides."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from .. import api
from ..spec import TTSServiceSpec


def child(
    kind: api.Kind,
    spec: TTSServiceSpec,
    content: Mapping[str, Any],
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    owned: bool = True,
) -> api.Body:
    """The whole object as it is applied. The user's labels never win over ours: the selector stands on them."""
    body: api.Body = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {
            "name": api.child_name(kind, spec.key.name),
            "namespace": spec.key.namespace,
            "labels": {**(labels or {}), **api.labels(spec.key.name)},
            "annotations": dict(annotations or {}),
            "ownerReferences": [owner_reference(spec)] if owned else [],
        },
        **content,
    }
    body["metadata"]["annotations"][api.ANNOTATION_INTENT] = intent_hash(body)
    return body


def owner_reference(spec: TTSServiceSpec) -> dict[str, Any]:
    return {
        "apiVersion": api.API_VERSION,
        "kind": api.TTS_SERVICE.kind,
        "name": spec.key.name,
        "uid": spec.uid,
        "controller": True,
        "blockOwnerDeletion": False,  # deletion never waits for us
    }


def intent_hash(body: api.Body) -> str:
    """Says whether a field was dropped from the intent, which no look at the live object can show."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def is_ours(kind: api.Kind, body: api.Body, spec: TTSServiceSpec) -> bool:
    """A claim that was retained has no owner and our labels: the next TTSService of the name takes it over."""
    if is_owned(body, spec.uid):
        return True
    metadata = body["metadata"]
    controlled = any(reference.get("controller") for reference in metadata.get("ownerReferences") or [])
    carried = metadata.get("labels") or {}
    return kind == api.CLAIM and not controlled and api.labels(spec.key.name).items() <= carried.items()


def is_owned(body: api.Body, uid: str) -> bool:
    references = body["metadata"].get("ownerReferences") or []
    return any(reference.get("controller") and reference.get("uid") == uid for reference in references)
