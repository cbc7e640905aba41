"""One connection: uvicorn's protocol, with the bounds that it does not have. Knows no application.

A request's head is bounded in bytes and in time, its body in time (its bytes: api/middleware.py), and what is not HTTP
gets an error of the same shape as all others.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
import uuid

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request as Handshake

from chattts_server.api.middleware import Connection
from chattts_server.errors import InvalidRequest, body_of

MAX_HEAD_BYTES = 32 * 1024  # a request's line and its headers
# The largest body on a slow line takes a while; an upload that is too slow is answered before (api/voices.py).
HEAD_SECONDS, BODY_SECONDS = 10.0, 75.0
# Of one connection. With the megabytes that Linux grants, a reader in real time would look as if it stood still.
KERNEL_BUFFER_BYTES, OUR_BUFFER_BYTES = 64 * 1024, 16 * 1024


class SpeechProtocol(HttpToolsProtocol):
    """Tells each request how old its connection is."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.connection = _connection(transport)
        self._head_bytes = self._trailer_bytes = 0
        self._in_head = False
        self._too_large = False
        self._patience: asyncio.TimerHandle | None = None
        _bound_buffers(transport)
        self._be_patient(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose_patience()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        began_before = self._in_head
        if self._patience is None:
            self._be_patient(HEAD_SECONDS)  # also for bytes that begin no request
        super().data_received(data)
        if self._in_head and began_before:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._too_large = True
                self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes, self._trailer_bytes = True, 0, 0
        self._be_patient(HEAD_SECONDS)
        self.connection.requests += 1
        self.scope["state"]["connection"] = self.connection

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of the head, and behind a chunked body again (trailers): those are bounded, and nobody wants them."""
        if self._in_head:
            super().on_header(name, value)
            return
        self._trailer_bytes += len(name) + len(value) + 4
        if self._trailer_bytes > MAX_HEAD_BYTES:
            self._too_large = True
            raise ValueError("the trailers are too large")  # as in on_headers_complete

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD_BYTES:
            self._too_large = True
            raise ValueError("the head is too large")  # the parser gives up, and uvicorn calls send_400_response
        self._in_head = False
        self._be_patient(BODY_SECONDS)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._lose_patience()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._lose_patience()
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """For what is not HTTP, in the shape of all other errors."""
        if self._too_large:
            self._refuse(
                431, "headers_too_large", f"the request's line and headers are larger than {MAX_HEAD_BYTES} bytes"
            )
        else:
            self._refuse(400, "malformed_request", "this is not a valid HTTP request")

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._lose_patience()
        others = bool(self.pipeline) or (self._answering and not self.cycle.more_body)
        if others or (self._answering and self.cycle.response_started):  # nothing may be mixed into an answer
            self.transport.abort()
            return
        if self.transport.is_closing():
            return
        body = json.dumps(body_of(InvalidRequest(message, code=code), uuid.uuid4().hex)).encode()
        head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head.encode() + body)
        self.transport.close()

    def _be_patient(self, seconds: float) -> None:
        self._lose_patience()
        self._patience = self.loop.call_later(seconds, self._waited_enough)

    def _lose_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _waited_enough(self) -> None:
        if self._answering and (self._in_head or not self.cycle.more_body):
            self._be_patient(HEAD_SECONDS)  # a pipelined request waits for ours: nothing is read meanwhile
        elif self._answering:
            self.transport.abort()  # its body does not come
        elif self._in_head:
            self._refuse(408, "request_timeout", "the request did not come in time")
        else:
            self.transport.close()  # it never asked for anything

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete


class SpeechSocket(WebSocketsSansIOProtocol):
    """A WebSocket after its upgrade; the transport and its bounds are still those of SpeechProtocol."""

    def handle_connect(self, event: Handshake) -> None:
        self.app_state = {**self.app_state, "connection": _connection(self.transport)}
        super().handle_connect(event)

    def handle_ping(self) -> None:
        """Who reads nothing gets no answers either: they would pile up."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()


def _connection(transport: asyncio.Transport) -> Connection:
    def abort() -> None:
        """With a reset: a body that has no length and just ended would look whole (HTTP/1.0)."""
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    return Connection(opened=time.monotonic(), abort=abort)


def _bound_buffers(transport: asyncio.Transport) -> None:
    raw = transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER_BYTES)
    transport.set_write_buffer_limits(high=OUR_BUFFER_BYTES)
