"""Every kopf decorator: what the API server tells goes to one function. No logic, no handler that writes.

Only `kopf.on.event` is used: change handlers, timers, daemons and finalizers would write into every object.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import kopf

from . import api

Seen = Callable[[api.Kind, api.Body, bool], None]  # kind, object, deleted


def registry(kinds: Iterable[api.Kind], seen: Seen, in_pod: bool) -> kopf.OperatorRegistry:
    handlers = kopf.OperatorRegistry()
    _login(handlers, in_pod)
    for kind in kinds:
        _watch(handlers, kind, seen)
    return handlers


def _watch(handlers: kopf.OperatorRegistry, kind: api.Kind, seen: Seen) -> None:
    @kopf.on.event(kind.group, kind.version, kind.plural, id=f"seen-{kind.plural}", registry=handlers)
    async def event(event: Any, **_: Any) -> None:  # async: kopf runs plain functions in threads
        seen(kind, dict(event["object"]), event["type"] == "DELETED")


def _login(handlers: kopf.OperatorRegistry, in_pod: bool) -> None:
    @kopf.on.login(id="login", registry=handlers)
    def login(**arguments: Any) -> kopf.ConnectionInfo | None:
        if not in_pod:
            return kopf.login_with_kubeconfig(**arguments)
        info = kopf.login_with_service_account(**arguments)
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if info is None or not host:
            return info
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return replace(info, server=f"https://{address}")  # works without cluster DNS


def settings(service_selector: str = "") -> kopf.OperatorSettings:
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False  # we write our own Events
    chosen.peering.standalone = True  # the Lease is the election; peering freezes on equal priority
    chosen.scanning.disabled = True  # no watching of all namespaces and CRDs
    chosen.watching.server_timeout = 300
    chosen.watching.client_timeout = 310
    chosen.watching.inactivity_timeout = 70  # bookmarks come every 60 s
    chosen.networking.request_timeout = 30
    chosen.networking.error_backoffs = (1, 1, 2, 2, 2, 2, 2, 2)
    chosen.networking.enforce_retry_after = True
    # The server sends only what carries our label. The form 'apps/deployments' would silently match nothing.
    if service_selector:
        own = (api.TTS_SERVICE.group, api.TTS_SERVICE.version, api.TTS_SERVICE.plural)
        chosen.watching.label_selectors[own] = service_selector
    for kind in (*api.CHILD_KINDS, api.POD):
        key = (kind.group, kind.version, kind.plural)
        chosen.watching.label_selectors[key] = api.CHILD_SELECTOR
    return chosen
