"""Around every request: its id, the limit of its body, the age of its connection. Plain ASGI; knows no route."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chattts_server.errors import BodyTooLarge, answer_for, body_of

MAX_BODY_BYTES = 64 * 1024
MAX_CONNECTION_SECONDS = 60.0
MAX_CONNECTION_REQUESTS = 1000
REQUEST_ID = "x-request-id"


@dataclass(slots=True)
class Connection:
    """One TCP connection. Made by serve.py's protocol, which puts it into scope["state"]["connection"]."""

    opened: float  # monotonic
    abort: Callable[[], None]  # drops it with all that is not sent yet
    requests: int = 0


class RequestFrame:
    """Gives each request an id, and closes connections that are old: new pods only get traffic on new connections."""

    def __init__(self, app: ASGIApp, clock: Callable[[], float], is_draining: Callable[[], bool]) -> None:
        self._app = app
        self._clock = clock
        self._is_draining = is_draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        connection: Connection | None = scope["state"].get("connection")

        async def send_framed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                if self._is_draining() or self._is_old(connection):  # now, not when the request came: it may be long
                    headers["connection"] = "close"
            await send(message)

        await self._app(scope, receive, send_framed)

    def _is_old(self, connection: Connection | None) -> bool:
        if connection is None:
            return False
        age = self._clock() - connection.opened
        return age > MAX_CONNECTION_SECONDS or connection.requests > MAX_CONNECTION_REQUESTS


class BodyLimit:
    """Refuses a large body before it is parsed, by its announced length or as soon as too much has come."""

    def __init__(self, app: ASGIApp, larger: Mapping[tuple[str, str], int] | None = None) -> None:
        """`larger`: bytes by (method, path) of those that may have more."""
        self._app = app
        self._larger = larger or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._larger.get((scope["method"], scope["path"]), MAX_BODY_BYTES)
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > most:
            await _refuse(scope, send, most)
            return
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise HTTPException(413, _too_large(most))  # FastAPI lets this kind through, problems.py answers it
            return message

        await self._app(scope, receive_limited, send)


def _too_large(most: int) -> str:
    return f"the body is larger than {most} bytes"


async def _refuse(scope: Scope, send: Send, most: int) -> None:
    error = BodyTooLarge(_too_large(most), code="body_too_large")
    body = json.dumps(body_of(error, scope["state"]["request_id"])).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": answer_for(error).status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
