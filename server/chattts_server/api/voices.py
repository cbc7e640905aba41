"""/v1/audio/voices: list, create from a seed, a string or a recording, delete. Knows forms, nothing of folders."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import ClientDisconnect

from chattts_server.api.form import parse_form
from chattts_server.api.models import CREATED
from chattts_server.api.problems import as_invalid
from chattts_server.engine.nouns import Hello
from chattts_server.errors import ClientGone, DeadlinePassed, InvalidRequest, NotFound, NotReady, Overloaded
from chattts_server.synthesis import Synthesis
from chattts_server.text.normalizer import is_readable, normalize
from chattts_server.voices.codec import MAX_STRING, MAX_TRANSCRIPT, BadVoice, encode_clone, encode_embedding
from chattts_server.voices.folder import NAME, StoredVoice
from chattts_server.voices.reference import BadRecording, decode_recording
from chattts_server.voices.seeds import MAX_SEED, NAMED_SEEDS, voice_of_seed
from chattts_server.voices.store import HOW_TO_SEE, Voices, problem_with

router = APIRouter(prefix="/v1/audio/voices", tags=["voices"])
PATH = "/v1/audio/voices"
MAX_UPLOAD_BYTES = 10 * 1024 * 1024
# Each holds an upload, a decoder and a place among the voices that the engine encodes between two steps.
MAX_CLONES = 2
UPLOAD_SECONDS, ENCODE_SECONDS = 60.0, 60.0
Type = Literal["audio_sample", "seed", "speaker"]


class CreateVoice(BaseModel):
    """From a seed or a voice string; from neither: a seed is drawn. With `name` it is stored."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    voice: Annotated[str, Field(min_length=1, max_length=MAX_STRING, description="a voice string")] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> CreateVoice:
        if self.seed is not None and self.voice is not None:
            raise ValueError("give seed or voice and not both")
        return self


@dataclass(frozen=True, slots=True)
class Made:
    text: str  # a voice string
    type: Type
    seed: int | None = None


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": CreateVoice.model_json_schema()},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["audio", "transcript"],
                    "properties": {
                        "audio": {"type": "string", "format": "binary", "description": "1 to 15 s; wav, mp3, webm ..."},
                        "transcript": {"type": "string", "maxLength": MAX_TRANSCRIPT, "description": "what it says"},
                        "name": {"type": "string", "pattern": f"^{NAME.pattern}$"},
                    },
                }
            },
        },
    }
}


@router.get("", summary="All voices that have a name")
async def list_voices(request: Request) -> dict[str, Any]:
    voices, hello = _voices(request), _synthesis(request).engine.hello
    stored = list(voices.stored.values())
    # A thousand strings to look at: not on the event loop.
    data = await asyncio.to_thread(lambda: [_stored(voice, hello) for voice in stored])
    data += [_built_in(name) for name in NAMED_SEEDS if name not in voices.stored]
    return {"object": "list", "data": data, "has_more": False, "kept_in": voices.place.kind}


@router.get("/{voice_id}", summary="One voice and its string")
async def get_voice(request: Request, voice_id: str) -> dict[str, Any]:
    stored, hello = _voices(request).stored.get(voice_id), _hello(request)
    if stored is not None:
        return {**_stored(stored, hello), "voice": stored.text}
    if voice_id not in NAMED_SEEDS:
        raise NotFound(f"there is no such voice; {HOW_TO_SEE}", code="voice_not_found", param="id")
    return {**_built_in(voice_id), "voice": encode_embedding(voice_of_seed(NAMED_SEEDS[voice_id], hello).embedding)}


@router.post("", status_code=201, summary="A voice from a seed, a voice string or a recording", openapi_extra=_BODY)
async def create_voice(request: Request) -> dict[str, Any]:
    """With `name` it is stored for all replicas, where this service keeps voices. Always answered with a voice string
    that says all: it is a voice wherever a name is, on any replica and any service with the same weights."""
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() == "multipart/form-data":
        name, made = await _clone(request, content_type)
    else:
        name, made = await _from_json(request)
    answer = {"object": "audio.voice", "type": made.type, "seed": made.seed, "voice": made.text, "problem": None}
    voices = _voices(request)
    if name is None or voices.place.kind == "none":
        return {**answer, "id": made.text, "name": name, "created_at": int(time.time()), "stored": False}
    stored = await voices.add(name, made.text)
    return {**answer, "id": name, "name": name, "created_at": stored.created, "stored": True}


@router.delete("/{voice_id}", summary="Delete a stored voice")
async def delete_voice(request: Request, voice_id: str) -> dict[str, Any]:
    await _voices(request).remove(voice_id)
    return {"id": voice_id, "object": "audio.voice.deleted", "deleted": True}


async def _from_json(request: Request) -> tuple[str | None, Made]:
    try:
        body = CreateVoice.model_validate_json(await _body(request))
    except ValidationError as error:
        raise as_invalid({**error.errors()[0], "loc": ("body", *error.errors()[0]["loc"])}) from None
    _voices(request).require_place(body.name)
    hello = _hello(request)
    if body.voice is not None:
        speaker = _voices(request).resolve_string(body.voice, hello)
        return body.name, Made(body.voice, "speaker" if speaker.transcript is None else "audio_sample")
    seed = random.randrange(2**31) if body.seed is None else body.seed
    return body.name, Made(encode_embedding(voice_of_seed(seed, hello).embedding), "seed", seed)


async def _clone(request: Request, content_type: str) -> tuple[str | None, Made]:
    async with _one_of_few(request):
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                body = await _body(request)
        except TimeoutError:
            raise DeadlinePassed("the upload takes too long", code="upload_too_slow") from None
        name, transcript, recording = _fields(await asyncio.to_thread(parse_form, content_type, body))
        _voices(request).require_place(name)
        _hello(request)
        try:
            samples = await decode_recording(recording)
        except BadRecording as problem:
            raise InvalidRequest(str(problem), code="bad_recording", param="audio") from None
        try:
            async with asyncio.timeout(ENCODE_SECONDS):
                codes = await _synthesis(request).engine.encode_voice(samples)
        except TimeoutError:
            raise DeadlinePassed("the engine has no time for the recording", code="deadline_exceeded") from None
    try:
        return name, Made(encode_clone(codes, transcript), "audio_sample")
    except BadVoice as problem:
        raise InvalidRequest(str(problem), code="bad_recording", param="audio") from None


async def _body(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect:
        raise ClientGone("the client has gone", code="client_gone") from None


def _fields(form: dict[str, bytes]) -> tuple[str | None, str, bytes]:
    """(name, transcript, recording). `audio_sample` is OpenAI's word for the recording."""
    recording = form.get("audio") or form.get("audio_sample")
    if not recording:
        raise InvalidRequest("audio: the form has no recording", code="invalid_value", param="audio")
    name = _text(form, "name")
    if name is not None and NAME.fullmatch(name) is None:
        raise InvalidRequest("name: 1 to 64 of A-Z a-z 0-9 . _ -", code="invalid_value", param="name")
    transcript = (_text(form, "transcript") or "").strip()
    if len(transcript) > MAX_TRANSCRIPT or not is_readable(normalize(transcript).text):
        raise InvalidRequest(
            f"transcript: what the recording says, 1 to {MAX_TRANSCRIPT} characters",
            code="invalid_value",
            param="transcript",
        )
    return name, transcript, recording


def _text(form: dict[str, bytes], field: str) -> str | None:
    if not form.get(field):
        return None
    try:
        return form[field].decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"{field}: not UTF-8", code="invalid_value", param=field) from None


@asynccontextmanager
async def _one_of_few(request: Request) -> AsyncIterator[None]:
    """Refused before a byte of the upload is read, so that a thousand uploads are not in memory."""
    state = request.app.state
    running: int = getattr(state, "clones", 0)
    if running >= MAX_CLONES:
        raise Overloaded("other recordings are being encoded", code="voices_busy", retry_after=5)
    state.clones = running + 1
    try:
        yield
    finally:
        state.clones -= 1


def _stored(voice: StoredVoice, hello: Hello | None) -> dict[str, Any]:
    problem = None if hello is None else problem_with(voice, hello)
    kind: Type = "audio_sample" if voice.text.startswith("clone:") else "speaker"
    return {
        "id": voice.name, "object": "audio.voice", "name": voice.name, "type": kind, "created_at": voice.created,
        "stored": True, "problem": problem,
    }  # fmt: skip


def _built_in(name: str) -> dict[str, Any]:
    return {
        "id": name, "object": "audio.voice", "name": name, "type": "seed", "created_at": CREATED,
        "stored": False, "problem": None,
    }  # fmt: skip


def _hello(request: Request) -> Hello:
    hello = _synthesis(request).engine.hello
    if hello is None:
        raise NotReady("the speech engine is not ready", code="not_ready", retry_after=2)
    return hello


def _voices(request: Request) -> Voices:
    voices: Voices = request.app.state.voices
    return voices


def _synthesis(request: Request) -> Synthesis:
    synthesis: Synthesis = request.app.state.synthesis
    return synthesis
