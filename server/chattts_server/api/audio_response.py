"""A response that sends audio while it is made. After its first byte an error can only break the body."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from chattts_server.api.middleware import Connection
from chattts_server.audio.encode import Encoder
from chattts_server.errors import ClientGone, ServerError
from chattts_server.synthesis import Speech
from chattts_server.tracing import Spans

STALL_SECONDS = 10.0  # a client that takes nothing for so long is gone
log = logging.getLogger(__name__)


class AudioStream(Response):
    """Chunked. It owns the Speech: whatever happens, the Speech is closed once."""

    def __init__(self, speech: Speech, encoder: Encoder, headers: Mapping[str, str]) -> None:
        self.status_code = 200
        self.background = None
        self.media_type = encoder.media_type
        self._speech = speech
        self._encoder = encoder
        self._spans = Spans()
        self.init_headers({**headers, "cache-control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(_disconnect(receive))
        self._spans = scope["state"]["spans"]
        error: BaseException | None = None
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                error = ClientGone("the client has gone", code="client_gone")
            else:
                await sending
        except ClientGone as stalled:
            error = stalled
            await _hang_up(scope, gone)
        except BaseException as problem:
            error = problem
            raise
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
            self._speech.close(error)

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        begun = False
        try:
            async for pcm in self._speech:
                # A second of mp3 costs milliseconds: in a thread, or the event loop would stand still for them.
                with self._spans.timed("encode"):
                    data = await asyncio.to_thread(self._encoder.encode, pcm)
                if data and not begun:
                    await _unless_stalled(send, start)
                    begun = True
                if data:
                    await _unless_stalled(send, {"type": "http.response.body", "body": data, "more_body": True})
            with self._spans.timed("encode"):
                rest = await asyncio.to_thread(self._encoder.finish)
        except ClientGone:
            raise  # nothing is broken but its reader
        except ServerError:
            if not begun:
                raise  # nothing is sent: it can still be answered properly
            # Ending here without the last chunk makes the client see a broken body, never a short success.
            log.error("stream broken", exc_info=True)
            raise
        if not begun:
            await _unless_stalled(send, start)
        await _unless_stalled(send, {"type": "http.response.body", "body": rest})


async def _unless_stalled(send: Send, message: Message) -> None:
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


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
