"""Around every request: its id, log line and trace, the limit of its body, the age of its connection. Plain ASGI."""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chattts_server import logs
from chattts_server.errors import BodyTooLarge, answer_for, body_of
from chattts_server.tracing import Span, Spans, Traces

MAX_BODY_BYTES = 64 * 1024
MAX_CONNECTION_SECONDS = 60.0
MAX_CONNECTION_REQUESTS = 1000
REQUEST_ID = "x-request-id"
_GOOD_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")  # of a proxy before us; anything else could forge a log
GONE = 499  # nobody was there to be answered
PROBES = ("/livez", "/readyz", "/startupz")  # asked every few seconds: a line only when they fail
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Connection:
    """One TCP connection. Made by serve.py's protocol, which puts it into scope["state"]["connection"]."""

    opened: float  # monotonic
    abort: Callable[[], None]  # drops it with all that is not sent yet
    requests: int = 0


class RequestFrame:
    """Gives each request an id, a log line and a trace, and closes old connections: only new ones reach new pods."""

    def __init__(
        self, app: ASGIApp, clock: Callable[[], float], is_draining: Callable[[], bool], traces: Traces | None = None
    ) -> None:
        self._app = app
        self._clock = clock
        self._is_draining = is_draining
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _GOOD_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {}).update(request_id=request_id)
        logs.request_id.set(request_id)
        if scope["type"] == "websocket":  # it logs for itself, each utterance has its spans, and it ends with a drain
            await self._app(scope, receive, _with_id(send, request_id))
            return
        scope["state"].update(spans=Spans())
        connection: Connection | None = scope["state"].get("connection")
        began, status, whole = self._clock(), 0, False

        async def send_framed(message: Message) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                if self._is_draining() or self._is_old(connection):  # now, not when the request came: it may be long
                    headers["connection"] = "close"
            await send(message)
            whole |= message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await self._app(scope, receive, send_framed)
        except Exception:  # answered outside of here, with 500, unless the answer had begun
            status = status or 500
            raise
        finally:
            self._tell(scope, Span(_route(scope), began, self._clock()), status or GONE, whole)

    def _tell(self, scope: Scope, request: Span, status: int, whole: bool) -> None:
        """No path and no query, which may hold anything: the route."""
        told: dict[str, str | int | float] = {"request_id": scope["state"]["request_id"], "method": scope["method"]}
        told |= {"route": request.name, "status": status}
        if not whole and status != 500:
            told["ended"] = "early"  # the client has gone, or the stream broke
        if caller := scope["state"].get("caller"):
            told["caller"] = caller
        if request.name in PROBES and status == 200:
            return
        if self._traces is not None:
            attributes = {"http.request.method": scope["method"], "http.route": request.name} | {
                "http.response.status_code": status, "chattts.request_id": scope["state"]["request_id"],
            }  # fmt: skip
            span = Span(f"{scope['method']} {request.name}", request.start, request.end, attributes)
            told["trace_id"] = self._traces.emit(span, scope["state"]["spans"], Headers(scope=scope))
        told["milliseconds"] = round((request.end - request.start) * 1000, 1)
        log.log(logging.ERROR if status == 500 else logging.INFO, "request", extra=told)

    def _is_old(self, connection: Connection | None) -> bool:
        if connection is None:
            return False
        age = self._clock() - connection.opened
        return age > MAX_CONNECTION_SECONDS or connection.requests > MAX_CONNECTION_REQUESTS


def _route(scope: Scope) -> str:
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "unmatched"


class BodyLimit:
    """Refuses a large body before it is parsed, by its announced length or as soon as too much has come."""

    def __init__(self, app: ASGIApp, larger: Mapping[tuple[str, str], int] | None = None) -> None:
        """`larger`: bytes by (method, path) of the forms that may have more: files are in them."""
        self._app = app
        self._larger = larger or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
        form = kind == "multipart/form-data"
        most = self._larger.get((scope["method"], scope["path"]), MAX_BODY_BYTES) if form else MAX_BODY_BYTES
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


def _with_id(send: Send, request_id: str) -> Send:
    """A handshake that is accepted and one that is refused both say it."""

    async def send_with_id(message: Message) -> None:
        if message["type"] in ("websocket.accept", "websocket.http.response.start"):
            message = {**message, "headers": [*message.get("headers", ()), (REQUEST_ID.encode(), request_id.encode())]}
        await send(message)

    return send_with_id
