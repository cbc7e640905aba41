"""The bodies that clients send. Every number is bounded here; nothing below checks again."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from chattts_server.audio.chain import Sound
from chattts_server.voices.codec import MAX_STRING

MAX_CHARACTERS = 10_000
GATE_WINDOW = 1024  # samples; when `denoise` is just true
Text = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)]
AudioFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]


def _named_by_id(voice: Any) -> Any:
    """OpenAI's clients may send `{"id": "..."}` for a voice of one's own."""
    return voice["id"] if isinstance(voice, dict) and set(voice) == {"id"} else voice


VoiceName = Annotated[str, Field(min_length=1, max_length=MAX_STRING), BeforeValidator(_named_by_id)]


class Common(BaseModel):
    """Fields of both forms. Unknown fields are ignored, as OpenAI's API does."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    voice: VoiceName = "default"
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    temperature: Annotated[float, Field(gt=0.01, le=2.0)] = 0.3
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.7
    top_k: Annotated[int, Field(ge=1, le=100)] = 20
    max_seconds: Annotated[float, Field(gt=0.0, le=600.0, description="longest audio, in seconds")] | None = None
    deadline_ms: Annotated[int, Field(ge=1, le=600_000, description="from arrival to the first audio")] | None = None
    speed: Annotated[float, Field(ge=0.25, le=4.0, description="times as fast, at the same pitch")] = 1.0
    sample_rate: Literal[8000, 16000, 24000, 48000] = 24000
    denoise: Annotated[
        bool | Literal[1024, 2048], Field(description="lower steady noise; the window in samples, true means 1024")
    ] = False
    refine: bool = False
    language: Literal["zh", "en", "auto"] = "auto"
    oral: Annotated[int, Field(ge=0, le=9, description="filler words; needs refine")] | None = None
    laugh: Annotated[int, Field(ge=0, le=2, description="laughter; needs refine")] | None = None
    pause: Annotated[int, Field(ge=0, le=7, description="pauses between words; needs refine")] | None = None

    @model_validator(mode="after")
    def _prosody_needs_refine(self) -> Common:
        """ChatTTS gives these marks to its text stage alone; the speaking stage has not learnt them."""
        for name in ("oral", "laugh", "pause"):
            if getattr(self, name) is not None and not self.refine:
                raise ValueError(
                    f"{name}: needs refine, the stage that puts such marks into the text: send refine true"
                )
        return self

    def sound(self, audio_format: AudioFormat) -> Sound:
        window = GATE_WINDOW if self.denoise is True else self.denoise or None
        return Sound(audio_format, self.speed, self.sample_rate, window)


class SpeechRequest(Common):
    """OpenAI's body of POST /v1/audio/speech, and our extra fields."""

    model: Annotated[str, Field(min_length=1, max_length=64)] = "chattts"
    input: Text
    response_format: AudioFormat = "mp3"
    stream_format: Literal["audio", "sse"] | None = None
    instructions: Annotated[str, Field(max_length=MAX_CHARACTERS)] | None = None  # has no effect on this model


class TtsRequest(Common):
    """The short form: `{"text": ...}` -> audio/wav."""

    text: Text
