"""A response that sends audio while it is made. After its first byte an error can only end it visibly.

As plain audio it then breaks: the last chunk is missing. As events it ends with an error event instead of `done`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from chattts_server.api.middleware import Connection
from chattts_server.audio.chain import Chain
from chattts_server.errors import ClientGone, EngineFailure, ServerError, body_of
from chattts_server.synthesis import Speech

STALL_SECONDS = 10.0  # a client that takes nothing for so long is gone
PART_BYTES = 8 * 1024  # a slow reader is seen to read, part by part
log = logging.getLogger(__name__)


class AudioStream(Response):
    """Chunked. It owns the Speech: whatever happens, the Speech is closed once."""

    def __init__(self, speech: Speech, chain: Chain, media_type: str, headers: Mapping[str, str]) -> None:
        self.status_code = 200
        self.background = None
        self.media_type = media_type
        self._speech = speech
        self._chain = chain
        self._begun = False
        self.init_headers({**headers, "cache-control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send(scope, send))
        gone = asyncio.ensure_future(disconnected(receive))
        error: BaseException | None = None
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                error = ClientGone("the client has gone", code="client_gone")
            else:
                error = await sending
        except ClientGone as stalled:
            error = stalled
            await _hang_up(scope, gone)
        except BaseException as problem:
            error = problem
            if self._begun and scope.get("http_version") == "1.0":
                await _hang_up(scope, gone)  # such a body ends with its connection: a reset tells it from a whole one
            raise
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
            self._speech.close(error)

    async def _send(self, scope: Scope, send: Send) -> BaseException | None:
        """None: all was sent. An error is returned when the client was told of it, else raised."""
        try:
            async with aclosing(encoded(self._speech, self._chain)) as pieces:
                async for data in pieces:
                    for part in parts_of(data):
                        await self._put(send, self._framed(part))
            await self._put(send, self._last(), more=False)
        except ClientGone:
            raise  # nothing is broken but its reader
        except Exception as error:
            if not self._begun:
                raise  # nothing is sent: it can still be answered properly
            log.error("stream broken", exc_info=True)
            told = self._failure(error, str(scope["state"].get("request_id", "")))
            if told is None:
                raise  # ending here without the last chunk makes the client see a broken body, never a short success
            await self._put(send, told, more=False)
            return error
        return None

    async def _put(self, send: Send, body: bytes, more: bool = True) -> None:
        if not self._begun:
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await unless_stalled(send, start)
            self._begun = True
        await unless_stalled(send, {"type": "http.response.body", "body": body, "more_body": more})

    def _framed(self, part: bytes) -> bytes:
        return part

    def _last(self) -> bytes:
        return b""

    def _failure(self, _error: Exception, _request_id: str) -> bytes | None:
        return None


class WholeAudio(Response):
    """Of known length; handed over part by part, so that who takes nothing is let go."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await unless_stalled(send, start)
            for part in parts_of(bytes(self.body)):
                await unless_stalled(send, {"type": "http.response.body", "body": part, "more_body": True})
            await unless_stalled(send, {"type": "http.response.body", "body": b""})
        except ClientGone:
            await _hang_up(scope, gone)
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)


class AudioEvents(AudioStream):
    """OpenAI's events of `stream_format: "sse"`, each with its type as name and in its data."""

    def __init__(self, speech: Speech, chain: Chain, headers: Mapping[str, str]) -> None:
        unbuffered = {"x-accel-buffering": "no"}  # nginx would hold events back
        super().__init__(speech, chain, "text/event-stream", {**headers, **unbuffered})

    def _framed(self, part: bytes) -> bytes:
        return _event("speech.audio.delta", audio=base64.b64encode(part).decode())

    def _last(self) -> bytes:
        return _event("speech.audio.done", usage=usage_of(self._speech))

    def _failure(self, error: Exception, request_id: str) -> bytes | None:
        return _event("error", **body_of(as_server_error(error), request_id))


def _event(kind: str, **data: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()


def usage_of(speech: Speech) -> dict[str, int]:
    """Tokens of the prompts, and steps of audio (46.875 to a second at speed 1)."""
    read, made = speech.input_tokens, speech.output_tokens
    return {"input_tokens": read, "output_tokens": made, "total_tokens": read + made}


def as_server_error(error: Exception) -> ServerError:
    """A bug shows no more of itself than its request id."""
    return error if isinstance(error, ServerError) else EngineFailure("internal error", code="internal_error")


async def encoded(speech: Speech, chain: Chain) -> AsyncGenerator[bytes, None]:
    """The bytes of an answer as they are made, none of them empty."""
    async with aclosing(aiter(speech)) as sound:
        async for pcm in sound:
            with speech.spans.timed("encode"):
                data = await beside(chain, chain.push, pcm)
            if data:
                yield data
    with speech.spans.timed("encode"):
        data = await beside(chain, chain.finish)
    if data:
        yield data


async def beside(chain: Chain, work: Callable[..., bytes], *arguments: bytes) -> bytes:
    """In a thread when it costs more than a thread does."""
    return await asyncio.to_thread(work, *arguments) if chain.is_costly else work(*arguments)


def parts_of(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES))


async def unless_stalled(send: Callable[[Message], Awaitable[None]], message: Message) -> None:
    try:
        async with asyncio.timeout(STALL_SECONDS):
            await send(message)
    except TimeoutError:
        raise ClientGone("the client reads nothing", code="client_stalled") from None


async def _hang_up(scope: Scope, gone: asyncio.Future[None]) -> None:
    """Else the unread bytes would keep the connection, and a drain, for ever."""
    connection: Connection | None = scope["state"].get("connection")
    if connection is not None:
        connection.abort()
        await asyncio.wait({gone}, timeout=1.0)


async def disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
