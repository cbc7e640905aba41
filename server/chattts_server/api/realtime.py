"""WS /v1/audio/speech/stream: text in while it is written, audio out while text still comes. docs/api.md says how.

One task reads what the client says, one speaks; `cancel` ends the speaking task, which frees its rows, and starts
another. The next utterance is already made while one is sent, but no more than that: a slow reader holds little.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, WebSocket
from fastapi.responses import JSONResponse
from starlette.types import Message
from starlette.websockets import WebSocketDisconnect

from chattts_server.api.audio_response import as_server_error, encoded, parts_of, unless_stalled, usage_of
from chattts_server.api.middleware import Connection
from chattts_server.api.realtime_messages import Cancel, End, Flush, Piece, Said, Start, understood
from chattts_server.api.schemas import MAX_CHARACTERS
from chattts_server.api.sentences import Sentences
from chattts_server.api.speech import utterance_of
from chattts_server.audio.chain import Chain, Sound
from chattts_server.errors import ClientGone, InvalidRequest, NotReady, ServerError, answer_for, body_of
from chattts_server.synthesis import Speech, Synthesis
from chattts_server.tracing import Span, Traces

router = APIRouter()
PATH = "/v1/audio/speech/stream"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. In app.state, so that a test has less."""

    start: float = 10.0  # from the handshake to `start`
    idle: float = 300.0  # nothing to say, and nothing said to us


@router.websocket(PATH)
async def stream(socket: WebSocket) -> None:
    request_id: str = socket.scope["state"]["request_id"]
    synthesis: Synthesis = socket.app.state.synthesis
    try:
        synthesis.require_ready(synthesis.clock())
    except NotReady as refusal:
        headers = {"retry-after": str(refusal.retry_after)}
        answer = JSONResponse(body_of(refusal, request_id), answer_for(refusal).status, headers)
        await socket.send_denial_response(answer)
        return
    await socket.accept()
    await Conversation(socket, synthesis, request_id).run()


@dataclass(frozen=True, slots=True)
class _Over:
    """How the connection is closed: a code of RFC 6455 and IANA, or of ours (4408 as HTTP's 408)."""

    code: int
    reason: str


DONE = _Over(1000, "")
BAD_START = _Over(1008, "the first message must be a good start")
BROKEN = _Over(1011, "internal error")
RESTARTING = _Over(1012, "this server is restarting")
SILENT = _Over(4408, "nothing was said for too long")


@dataclass(frozen=True, slots=True)
class _Begun:
    """An utterance whose first audio is there, or that was refused."""

    number: int
    characters: int
    speech: Speech | ServerError


class Conversation:
    def __init__(self, socket: WebSocket, synthesis: Synthesis, request_id: str) -> None:
        self._socket = socket
        self._synthesis = synthesis
        self._request_id = request_id
        self._patience: Patience = socket.app.state.patience
        self._traces: Traces | None = socket.app.state.traces
        self._start = Start(type="start")
        self._sentences = Sentences()
        self._news = asyncio.Event()  # text, its end, or a drain
        self._ended = False  # the client has said `end`
        self._draining = False
        self._begun = 0  # utterances
        self._busy = 0  # utterances that are made or sent
        self._active_at = time.monotonic()  # something was said, by either side
        self._cancelled: deque[int] = deque()  # characters dropped by each `cancel` that is still to be answered
        self._speaking = asyncio.create_task(self._speak(None))

    async def run(self) -> None:
        """Until somebody ends it; whatever happens, no row is left behind."""
        began, code = time.monotonic(), 1006  # RFC 6455: no close came
        try:
            over = await self._converse()
            await self._send({"type": "websocket.close", "code": over.code, "reason": over.reason})
            code = over.code
        except WebSocketDisconnect as left:
            code = left.code
        except ClientGone:
            self._hang_up()
        finally:
            self._log(time.monotonic() - began, code)

    def _log(self, seconds: float, code: int) -> None:
        told: dict[str, str | int | float] = {"request_id": self._request_id, "route": PATH, "close_code": code}
        if caller := self._socket.scope["state"].get("caller"):
            told["caller"] = caller
        told |= {"utterances": self._begun, "milliseconds": round(seconds * 1000, 1)}
        log.info("conversation", extra=told)

    async def _converse(self) -> _Over:
        reading = asyncio.ensure_future(self._read())
        drain = asyncio.ensure_future(self._synthesis.drain_begun.wait())
        try:
            while not (over := self._over(reading)):
                # `cancel` puts another task in the place of the one that it ends, which wakes us.
                waited = {task for task in (reading, drain, self._speaking) if not task.done()}
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if drain.done():
                    self._draining = True
                    self._news.set()
            return over
        except (ClientGone, WebSocketDisconnect):
            raise
        except Exception:
            log.exception("bug", extra={"request_id": self._request_id})
            return BROKEN
        finally:
            for task in (reading, drain, self._speaking):
                task.cancel()
            await asyncio.gather(reading, drain, self._speaking, return_exceptions=True)

    def _over(self, reading: asyncio.Future[_Over]) -> _Over | None:
        """None: it goes on. Raises what has ended a task."""
        if reading.done():
            return reading.result()
        if self._speaking.done():
            self._speaking.result()
            return RESTARTING if self._draining else DONE
        return None

    # What the client says

    async def _read(self) -> _Over:
        first = await self._next_message(self._patience.start)
        if first is None:
            return SILENT
        if not isinstance(first, Start):
            wrong = InvalidRequest("the first message must be start", code="not_started")
            await self._tell("error", first if isinstance(first, InvalidRequest) else wrong)
            return BAD_START
        self._start = first
        await self._say("ready", request_id=self._request_id, **_described(self._sound))
        while (said := await self._next_message(self._patience.idle)) is not None:
            if (problem := self._take(said)) is not None:
                await self._tell("error", problem)
        return SILENT

    async def _next_message(self, patience: float) -> Said | InvalidRequest | None:
        """None: for so long nobody has said anything."""
        while True:
            left = patience if self._busy else patience - (time.monotonic() - self._active_at)
            if left <= 0:
                return None
            try:
                async with asyncio.timeout(left):
                    message = await self._socket.receive()
            except TimeoutError:
                continue
            self._active_at = time.monotonic()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1005))
            return understood(message.get("text"))

    def _take(self, said: Said | InvalidRequest) -> InvalidRequest | None:
        """Does what is said, or returns why not."""
        match said:
            case InvalidRequest():
                return said
            case Start():
                return InvalidRequest("start comes once, as the first message", code="already_started")
            case Piece(text=text):
                return self._take_text(text)
            case Flush():
                self._sentences.flush()
            case End():
                self._sentences.flush()
                self._ended = True
            case Cancel():
                self._be_silent()
        self._news.set()
        return None

    def _take_text(self, text: str) -> InvalidRequest | None:
        if self._ended:
            return InvalidRequest("no text can follow end", code="already_ended", param="text")
        if self._sentences.characters + len(text) > MAX_CHARACTERS:
            why = f"no more than {MAX_CHARACTERS} characters may wait; this message was not taken"
            return InvalidRequest(why, code="text_buffer_full", param="text")
        self._sentences.add(text)
        self._news.set()
        return None

    def _be_silent(self) -> None:
        """The rows of what is spoken and of what comes next are freed at once; then another task speaks on."""
        before = self._speaking
        self._cancelled.append(self._sentences.clear())
        before.cancel()
        self._speaking = asyncio.create_task(self._speak(before))

    # What we say

    async def _speak(self, before: asyncio.Task[None] | None) -> None:
        """Utterance after utterance, until all is said or a drain has begun. `before`: who has to fall silent first."""
        if before is not None:
            await asyncio.wait({before})
        while self._cancelled:
            await self._say("cancelled", characters=self._cancelled[0])
            self._cancelled.popleft()
        ahead = asyncio.create_task(self._next())
        try:
            while (begun := await ahead) is not None:
                ahead = asyncio.create_task(self._next())  # is made while this one is sent
                await self._deliver(begun)
                if self._draining:
                    return
            if self._ended:
                await self._say("done", utterances=self._begun)
        finally:
            ahead.cancel()
            ahead.add_done_callback(_close_unheard)

    async def _next(self) -> _Begun | None:
        """Waits for a sentence and for its first audio. None: there is no more."""
        while not self._draining:
            text = self._sentences.take()
            if text is not None:
                return await self._begin(text)
            if self._ended:
                return None
            self._news.clear()
            await self._news.wait()
        return None

    async def _begin(self, text: str) -> _Begun:
        self._begun += 1
        number, now = self._begun, self._synthesis.clock()
        with self._at_work():
            try:
                speech = await self._synthesis.speak(utterance_of(self._socket, self._start, text, "stream", True, now))
            except ServerError as refused:
                return _Begun(number, len(text), refused)
            return _Begun(number, len(text), speech)

    async def _deliver(self, begun: _Begun) -> None:
        about = {"utterance": begun.number, "characters": begun.characters}
        with self._at_work():
            if isinstance(begun.speech, ServerError):
                await self._tell("utterance.failed", begun.speech, **about)
            else:
                await self._send_audio(begun.speech, about)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Who waits for audio, or listens, is not idle."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self._active_at = time.monotonic()

    async def _send_audio(self, speech: Speech, about: dict[str, int]) -> None:
        error: BaseException | None = None
        try:
            await self._say("utterance.started", **about)
            async with aclosing(encoded(speech, Chain(self._sound))) as pieces:
                async for data in pieces:
                    for part in parts_of(data):
                        await self._send({"type": "websocket.send", "bytes": part})
            seconds = round(speech.audio_seconds / self._start.speed, 3)
            await self._say("utterance.done", **about, audio_seconds=seconds, usage=usage_of(speech))
        except WebSocketDisconnect:
            error = ClientGone("the client has gone", code="client_gone")
            raise
        except (ClientGone, asyncio.CancelledError) as left:
            error = left
            raise
        except Exception as broken:  # never a short success: there is no utterance.done
            error = broken
            log.error("utterance broken", exc_info=True, extra={"request_id": self._request_id})
            await self._tell("utterance.failed", as_server_error(broken), **about)
        finally:
            speech.close(error)
            self._trace(speech, about["utterance"])

    def _trace(self, speech: Speech, number: int) -> None:
        """Each utterance is a trace, or a part of the one that the handshake named."""
        if self._traces is not None:
            attributes: dict[str, str | int | float] = {"http.route": PATH, "chattts.request_id": self._request_id}
            attributes["chattts.utterance"] = number
            told = Span(f"utterance {PATH}", speech.arrived, time.monotonic(), attributes)
            self._traces.emit(told, speech.spans, self._socket.headers)

    @property
    def _sound(self) -> Sound:
        return self._start.sound(self._start.response_format)

    async def _tell(self, kind: str, error: ServerError, **fields: Any) -> None:
        after = {} if error.retry_after is None else {"retry_after": error.retry_after}
        await self._say(kind, **fields, **after, **body_of(error, self._request_id))

    async def _say(self, kind: str, **fields: Any) -> None:
        await self._send({"type": "websocket.send", "text": json.dumps({"type": kind, **fields})})

    async def _send(self, message: Message) -> None:
        await unless_stalled(self._socket.send, message)

    def _hang_up(self) -> None:
        """A reader that stands still would keep the connection, and a drain, for ever."""
        connection: Connection | None = self._socket.scope["state"].get("connection")
        if connection is not None:
            connection.abort()


def _described(sound: Sound) -> dict[str, object]:
    return {"response_format": sound.format, "media_type": sound.media_type, "sample_rate": sound.sample_rate}


def _close_unheard(ahead: asyncio.Task[_Begun | None]) -> None:
    """An utterance that was begun, and that nobody will send."""
    if ahead.cancelled() or ahead.exception() is not None:
        return
    begun = ahead.result()
    if begun is not None and isinstance(begun.speech, Speech):
        begun.speech.close(asyncio.CancelledError())
