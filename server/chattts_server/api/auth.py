"""Who calls: API keys from a mounted file or folder, before anything else is done with a request. Knows no budget.

A file has lines `NAME: KEY`; a folder, which is how a Secret is mounted, has a file per key: its name and the key.
Keys are in memory as keyed hashes only. `scope["state"]["caller"]` is the key's name, or "" where nobody needs a key.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chattts_server.errors import CannotStart, Unauthorized, answer_for, body_of

LOOK_SECONDS = 1.0
# Browsers cannot set headers of a WebSocket: OpenAI's clients offer the key as a protocol, beside the real one.
KEY_PROTOCOL = "openai-insecure-api-key."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_KEY = re.compile(r"[!-~]{16,512}", re.ASCII)
KEY_RULE = "a key is 16 to 512 printable ASCII characters without spaces"
Signature = tuple[tuple[str, int, int, int], ...]
log = logging.getLogger(__name__)


class BadKeys(ValueError):
    """One line for the log; holds no key."""


class KeyRing:
    """The accepted keys, read again when what is mounted changes. A change that cannot be read changes nothing; one to
    no keys at all shuts everybody out."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises CannotStart."""
        self._path = path
        self._clock = clock
        self._secret = os.urandom(32)
        try:
            self._signature = _signature(path)
            self._names = self._hashed(read_keys(path))
        except (BadKeys, OSError) as problem:
            raise CannotStart(f"CHATTTS_API_KEYS: {problem}") from None
        if not self._names:
            raise CannotStart("CHATTTS_API_KEYS: there is no key, so nobody could call")
        self._looked_at = clock()
        self._problem = ""  # of the last look

    def name_of(self, key: str) -> str | None:
        """Compares with every key in constant time; None: it is none of them."""
        self._look()
        presented = self._hash(key)
        found: str | None = None
        for digest, name in self._names.items():
            if hmac.compare_digest(digest, presented):
                found = name
        return found

    def _look(self) -> None:
        """At most once a second; a mounted Secret lies in memory, so this takes microseconds."""
        now = self._clock()
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        try:
            signature = _signature(self._path)
            if signature != self._signature:
                self._names = self._hashed(read_keys(self._path))
                self._signature = signature
                log.info("API keys read again", extra={"keys": sorted(self._names.values())})
            self._problem = ""
        except (BadKeys, OSError) as problem:
            if str(problem) != self._problem:
                log.error("the API keys cannot be read; the known ones stay", extra={"problem": str(problem)})
            self._problem = str(problem)

    def _hashed(self, keys: Mapping[str, str]) -> dict[bytes, str]:
        return {self._hash(key): name for name, key in keys.items()}

    def _hash(self, key: str) -> bytes:
        return hmac.digest(self._secret, key.encode("utf-8", "surrogateescape"), "sha256")


def read_keys(path: Path) -> dict[str, str]:
    """Name -> key. Raises BadKeys, OSError."""
    keys: dict[str, str] = {}
    for name, key in _files(path) if path.is_dir() else _lines(path.read_text(encoding="utf-8", errors="replace")):
        if _NAME.fullmatch(name) is None:
            raise BadKeys(f"the name of key number {len(keys) + 1} is not 1 to 63 of A-Z a-z 0-9 . _ -")
        if _KEY.fullmatch(key) is None:
            raise BadKeys(f"{name}: {KEY_RULE}")
        if name in keys or key in keys.values():
            raise BadKeys(f"{name} has a name or a key that is there already")
        keys[name] = key
    return keys


def _lines(text: str) -> Iterable[tuple[str, str]]:
    for line in map(str.strip, text.splitlines()):
        if line and not line.startswith("#"):
            name, _, key = line.partition(":")
            yield name.strip(), key.strip()


def _files(folder: Path) -> Iterable[tuple[str, str]]:
    for path in _visible(folder):
        yield path.name, path.read_text(encoding="utf-8", errors="replace").strip()


def _visible(folder: Path) -> list[Path]:
    """Not `..data` and the folders that the kubelet swaps behind it."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _signature(path: Path) -> Signature:
    files = _visible(path) if path.is_dir() else [path]
    statuses = [(file.name, file.stat()) for file in files]
    return tuple((name, status.st_mtime_ns, status.st_size, status.st_ino) for name, status in statuses)


class Authentication:
    """Outside of everything that reads a body or takes a place. `is_open` says which paths need no key."""

    def __init__(self, app: ASGIApp, keys: KeyRing | None, is_open: Callable[[str], bool]) -> None:
        self._app = app
        self._keys = keys
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["caller"] = ""
        if self._keys is not None and not self._is_open(scope["path"]):
            key = _presented(scope)
            caller = None if key is None else self._keys.name_of(key)
            if caller is None:
                await _refuse(scope, send, _refusal(key))
                return
            state["caller"] = caller
        await self._app(scope, receive, _choosing_a_protocol(scope, send))


def _presented(scope: Scope) -> str | None:
    scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    offered = (protocol for protocol in scope.get("subprotocols", ()) if protocol.startswith(KEY_PROTOCOL))
    return next((protocol.removeprefix(KEY_PROTOCOL) for protocol in offered), None)


def _choosing_a_protocol(scope: Scope, send: Send) -> Send:
    """A browser that offers protocols hangs up when none of them is chosen; the key's own is never sent back."""
    real = [name for name in scope.get("subprotocols", ()) if not name.startswith(KEY_PROTOCOL)]
    if not real:
        return send

    async def send_with_protocol(message: Message) -> None:
        if message["type"] == "websocket.accept" and not message.get("subprotocol"):
            message = {**message, "subprotocol": real[0]}
        await send(message)

    return send_with_protocol


def _refusal(key: str | None) -> Unauthorized:
    if key is None:
        return Unauthorized("no API key; send it as `Authorization: Bearer KEY`", code="missing_api_key")
    return Unauthorized("the API key is not one of this service's", code="invalid_api_key")


async def _refuse(scope: Scope, send: Send, error: Unauthorized) -> None:
    """A WebSocket is answered before it is one, where the server can do that; else it is closed, which is a 403."""
    prefix = "http"
    if scope["type"] == "websocket":
        prefix = "websocket.http"
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": error.code})
            return
    body = json.dumps(body_of(error, scope["state"].get("request_id", ""))).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"www-authenticate", b"Bearer"),
    ]
    start = {"type": f"{prefix}.response.start", "status": answer_for(error).status, "headers": headers}
    await send(start)
    await send({"type": f"{prefix}.response.body", "body": body})
