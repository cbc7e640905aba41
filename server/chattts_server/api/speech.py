"""POST /v1/audio/speech and POST /tts. Knows the request's form and the audio formats, nothing of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Request, Response

from chattts_server.api.audio_response import AudioStream
from chattts_server.api.middleware import Connection
from chattts_server.api.schemas import Common, SpeechRequest, TtsRequest
from chattts_server.audio.encode import ENCODERS, encode_whole
from chattts_server.config import Settings
from chattts_server.engine.nouns import SAMPLE_RATE, Sampling
from chattts_server.errors import ClientGone
from chattts_server.metrics import Delivery
from chattts_server.synthesis import Speech, Synthesis, Utterance

router = APIRouter()
LONG_PCM_BYTES = 10 * SAMPLE_RATE * 4  # ten seconds
DROPPED_HEADER = "x-chattts-dropped-characters"
T = TypeVar("T")


@router.post("/v1/audio/speech", response_class=Response, summary="OpenAI's speech endpoint")
async def speech(request: Request, body: Annotated[SpeechRequest, Body()]) -> Response:
    """mp3 (default) and pcm are sent while they are made; wav is sent whole with its exact length, unless
    `stream_format` asks for a stream."""
    # What the client asked for decides how its latency is counted: only an explicit stream is one.
    delivery: Delivery = "full" if body.stream_format is None else "stream"
    speak = _synthesis(request).speak
    whole = body.response_format == "wav" and delivery == "full"
    utterance = _utterance(request, body, body.input, delivery, whole)
    if whole:
        return await _whole(request, await _unless_gone(request, speak(utterance)))
    encoder = ENCODERS[body.response_format]()  # first: when it fails, no place is taken yet
    spoken = await _unless_gone(request, speak(utterance))
    return AudioStream(spoken, encoder, {DROPPED_HEADER: str(spoken.dropped)})


@router.post("/tts", response_class=Response, summary="The short form: text in, wav out")
async def tts(request: Request, body: Annotated[TtsRequest, Body()]) -> Response:
    spoken = await _unless_gone(request, _synthesis(request).speak(_utterance(request, body, body.text, "full", True)))
    return await _whole(request, spoken)


async def _whole(request: Request, spoken: Speech) -> Response:
    async def collect() -> bytes:
        return b"".join([pcm async for pcm in spoken])

    try:
        pcm = await _unless_gone(request, collect())
        with request.scope["state"]["spans"].timed("encode"):
            wav = await _as_wav(pcm)
    except BaseException as error:
        spoken.close(error)
        raise
    spoken.close()
    return Response(wav, media_type="audio/wav", headers={DROPPED_HEADER: str(spoken.dropped)})


async def _as_wav(pcm: bytes) -> bytes:
    """A thread costs more than a short answer does; a long one would hold up the event loop."""
    if len(pcm) <= LONG_PCM_BYTES:
        return encode_whole("wav", pcm)
    return await asyncio.to_thread(encode_whole, "wav", pcm)


def _utterance(request: Request, body: Common, text: str, delivery: Delivery, whole: bool) -> Utterance:
    settings: Settings = request.app.state.settings
    arrived: float = request.scope["state"]["arrived"]
    timeout = settings.request_timeout_seconds
    if body.deadline_ms is not None:
        timeout = min(timeout, body.deadline_ms / 1000)
    connection: Connection | None = request.scope["state"].get("connection")
    return Utterance(
        text=text,
        voice=body.voice,
        sampling=Sampling(body.temperature, body.top_p, body.top_k, seed=body.seed),
        max_seconds=body.max_seconds,
        delivery=delivery,
        arrived=arrived,
        connected=arrived if connection is None else connection.opened,
        deadline=arrived + timeout,
        whole=whole,
        caller=request.scope["state"].get("caller", ""),
        fingerprint=_fingerprint(request, body),
        spans=request.scope["state"]["spans"],
    )


def _fingerprint(request: Request, body: Common) -> int:
    """By it a client is known that comes back as it was told. Only a hash is kept, with a key of this process."""
    named = request.headers.get("idempotency-key")
    address = "" if request.client is None else request.client.host
    return hash(named) if named else hash((address, body.model_dump_json()))


def _synthesis(request: Request) -> Synthesis:
    synthesis: Synthesis = request.app.state.synthesis
    return synthesis


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Cancels the work when the client hangs up: nobody would hear it."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone("the client has gone", code="client_gone")
        return await working
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
