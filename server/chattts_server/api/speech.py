"""POST /v1/audio/speech and POST /tts. Knows the request's form and the audio formats, nothing of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Request, Response
from starlette.requests import HTTPConnection

from chattts_server.api.audio_response import AudioEvents, AudioStream, WholeAudio, disconnected
from chattts_server.api.middleware import Connection
from chattts_server.api.schemas import Common, SpeechRequest, TtsRequest
from chattts_server.audio.chain import Chain, Sound, as_whole_wav
from chattts_server.audio.encode import FORMATS
from chattts_server.config import Settings
from chattts_server.engine.nouns import SAMPLE_RATE, Sampling
from chattts_server.errors import ClientGone
from chattts_server.metrics import Delivery
from chattts_server.synthesis import Speech, Synthesis, Utterance
from chattts_server.text.tokens import Prosody
from chattts_server.tracing import Spans

router = APIRouter()
LONG_PCM_BYTES = 10 * SAMPLE_RATE * 4  # ten seconds
DROPPED_HEADER, RATE_HEADER = "x-chattts-dropped-characters", "x-chattts-sample-rate"
T = TypeVar("T")

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_MEDIA_TYPES = {chosen.media_type.split(";")[0] for chosen in FORMATS.values()}
_SPOKEN: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The audio, or its events",
        "content": dict.fromkeys(sorted(_MEDIA_TYPES), _BINARY) | {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
_WAV: dict[int | str, dict[str, Any]] = {200: {"description": "The audio", "content": {"audio/wav": _BINARY}}}


@router.post(
    "/v1/audio/speech", response_class=Response, responses=_SPOKEN, summary="OpenAI's speech endpoint",
)  # fmt: skip
async def speech(request: Request, body: Annotated[SpeechRequest, Body()]) -> Response:
    """Sent while it is made, as audio or, with `stream_format: "sse"`, as events. A wav without `stream_format` is sent
    whole, with its exact length."""
    sound = body.sound(body.response_format)
    # What the client asked for decides how its latency is counted: only an explicit stream is one.
    delivery: Delivery = "full" if body.stream_format is None else "stream"
    whole = body.response_format == "wav" and delivery == "full"
    utterance = utterance_of(request, body, body.input, delivery, not whole, request.scope["state"]["arrived"])
    if whole:
        return await _whole(request, await _unless_gone(request, _synthesis(request).speak(utterance)), sound)
    chain = Chain(sound)  # first: when it fails, no place is taken yet
    spoken = await _unless_gone(request, _synthesis(request).speak(utterance))
    if body.stream_format == "sse":
        return AudioEvents(spoken, chain, _headers(spoken, sound))
    return AudioStream(spoken, chain, sound.media_type, _headers(spoken, sound))


@router.post("/tts", response_class=Response, responses=_WAV, summary="The short form: text in, wav out")
async def tts(request: Request, body: Annotated[TtsRequest, Body()]) -> Response:
    utterance = utterance_of(request, body, body.text, "full", False, request.scope["state"]["arrived"])
    return await _whole(request, await _unless_gone(request, _synthesis(request).speak(utterance)), body.sound("wav"))


async def _whole(request: Request, spoken: Speech, sound: Sound) -> Response:
    async def collect() -> bytes:
        return b"".join([pcm async for pcm in spoken])

    try:
        pcm = await _unless_gone(request, collect())
        with spoken.spans.timed("encode"):
            wav = await _as_wav(sound, pcm)
    except BaseException as error:
        spoken.close(error)
        raise
    spoken.close()
    return WholeAudio(wav, media_type=sound.media_type, headers=_headers(spoken, sound))


async def _as_wav(sound: Sound, pcm: bytes) -> bytes:
    """A thread costs more than a short answer does; a long one would hold up the event loop."""
    if len(pcm) <= LONG_PCM_BYTES and sound.is_plain:
        return as_whole_wav(sound, pcm)
    return await asyncio.to_thread(as_whole_wav, sound, pcm)


def _headers(spoken: Speech, sound: Sound) -> dict[str, str]:
    return {DROPPED_HEADER: str(spoken.dropped), RATE_HEADER: str(sound.sample_rate)}


def utterance_of(
    connection: HTTPConnection, body: Common, text: str, delivery: Delivery, streamed: bool, arrived: float
) -> Utterance:
    """Of a request or of a WebSocket. `arrived`: monotonic, when all of the text was there."""
    settings: Settings = connection.app.state.settings
    timeout = settings.request_timeout_seconds
    if body.deadline_ms is not None:
        timeout = min(timeout, body.deadline_ms / 1000)
    transport: Connection | None = connection.scope["state"].get("connection")
    return Utterance(
        text=text,
        voice=body.voice,
        sampling=Sampling(body.temperature, body.top_p, body.top_k, seed=body.seed),
        # Of what is heard: twice as fast is twice as much of the model's.
        max_seconds=None if body.max_seconds is None else body.max_seconds * body.speed,
        delivery=delivery,
        streamed=streamed,
        arrived=arrived,
        connected=arrived if transport is None else transport.opened,
        deadline=arrived + timeout,
        language=body.language,
        prosody=Prosody(body.oral, body.laugh, body.pause) if body.refine else None,
        # Slower is longer: what is sent is bounded, too.
        whole_seconds=settings.max_whole_audio_seconds * min(1.0, body.speed),
        caller=connection.scope["state"].get("caller", ""),
        fingerprint=_fingerprint(connection, body, text),
        spans=connection.scope["state"].get("spans", Spans()),  # each utterance of a WebSocket has its own
    )


def _fingerprint(connection: HTTPConnection, body: Common, text: str) -> int:
    """By it a client is known that comes back as it was told. Only a hash is kept, with a key of this process."""
    named = connection.headers.get("idempotency-key")
    address = "" if connection.client is None else connection.client.host
    return hash((named, text)) if named else hash((address, text, body.model_dump_json()))


def _synthesis(request: Request) -> Synthesis:
    synthesis: Synthesis = request.app.state.synthesis
    return synthesis


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Cancels the work when the client hangs up: nobody would hear it."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(disconnected(request.receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone("the client has gone", code="client_gone")
        return await working
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)
