"""Events on a TTSService: what happened, with numbers, once. Knows how to name and send them, not when.

The name of an Event is made from what it says, so that saying it again, even after a restart, is answered with 409.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime
from typing import Protocol

from . import api
from .kube import KubeError
from .notes import Note

LOG = logging.getLogger(__name__)


class Creator(Protocol):
    async def create(self, kind: api.Kind, body: api.Body) -> api.Body: ...


async def send(creator: Creator, service: api.Body, note: Note, now: float) -> None:
    """Losing an Event must not fail a reconcile."""
    try:
        await creator.create(api.EVENT, event(service, note, now))
    except KubeError as error:
        if error.status != 409:
            LOG.warning("event %s on %s was not written: %s", note.reason, api.key_of(service), error)


def event(service: api.Body, note: Note, now: float) -> api.Body:
    metadata = service["metadata"]
    said = "\n".join((metadata["uid"], note.reason, note.message, note.occasion))
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": api.EVENT.api_version,
        "kind": api.EVENT.kind,
        "metadata": {
            "namespace": metadata["namespace"],
            "name": f"{metadata['name']}.{hashlib.sha256(said.encode()).hexdigest()[:16]}",
        },
        "involvedObject": {
            "apiVersion": api.API_VERSION,
            "kind": api.TTS_SERVICE.kind,
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
        "type": "Warning" if note.warning else "Normal",
        "reason": note.reason,
        "message": note.message[:1024],
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
        "source": {"component": api.MANAGER},
        "reportingComponent": api.MANAGER,
        "reportingInstance": api.MANAGER,
    }
