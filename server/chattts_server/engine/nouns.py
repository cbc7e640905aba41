"""The border between the HTTP process and the engine process: every message, and who fills each field. Data only.

    to the engine:    Submit, Credit, Cancel, EncodeVoice, Drain
    from the engine:  Phase*, Hello, then Chunk, Finish, Fail, Refined, EncodedVoice, StepReport, Heartbeat

Times are time.monotonic(): CLOCK_MONOTONIC is one clock for all processes of a machine.
PCM is float32 little-endian, mono, at Hello.sample_rate.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

PROTOCOL = 3
STEPS_PER_SECOND = 46.875  # one step is 4 codes, 2 mel frames, 512 samples at 24 kHz
SAMPLE_RATE = 24000
CODEBOOKS = 4
END_CODE = 625  # of the 626 in each codebook; it is not part of a row
UNLIMITED_CREDIT = 1 << 40  # samples: the whole row is wanted, whoever reads

END_TOKEN = 21136  # [Ebreak], of the text stage

DTYPES = ("auto", "float32", "float16", "bfloat16", "int8")  # that may be asked for; precision.py says what goes where
Stage = Literal["code", "text"]  # speech; or the text itself again, with marks of prosody
# Of a row: too late; refused; it raised; values that are not finite; its first step was its end, again and again.
FailKind = Literal["deadline", "invalid", "engine", "nan", "empty"]
FinishReason = Literal["end", "limit"]
RowPhase = Literal["queue", "prefill", "decode", "vocode"]


class Sampling(msgspec.Struct, frozen=True, array_like=True):
    """Filled by the HTTP side, checked there; each row of a batch has its own."""

    temperature: float = 0.3
    top_p: float = 0.7
    top_k: int = 20
    repetition_penalty: float = 1.05
    seed: int | None = None  # None: fresh noise


class Voice(msgspec.Struct, frozen=True, array_like=True):
    """Who speaks: an embedding (float32, the model's width), codes of a reference (uint16, 4 x n), or nobody."""

    embedding: bytes = b""
    codes: bytes = b""


class Limits(msgspec.Struct, frozen=True, array_like=True):
    max_steps: int
    min_steps: int = 1


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    """One row: one piece of text in one voice. `credit` 0 keeps it waiting until Credit comes."""

    id: int
    token_ids: list[int]  # the whole prompt, [Stts] to [Ptts]
    voice: Voice
    sampling: Sampling
    limits: Limits
    deadline: float | None  # monotonic; to the first audio
    credit: int  # samples that may be sent before the next Credit
    stage: Stage = "code"  # text: answered by Refined; any credit lets it begin


class Credit(msgspec.Struct, frozen=True, tag="credit"):
    """More samples of a row may be sent. Without credit its next piece is not sent, and a waiting row not started."""

    id: int
    samples: int


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Nobody listens any more. Not answered; chunks already on the way are to be ignored."""

    id: int


class EncodeVoice(msgspec.Struct, frozen=True, tag="encode_voice"):
    """Reference audio to codes; answered by EncodedVoice or Fail with the same id."""

    id: int
    pcm: bytes


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Finish all rows, send their audio, and exit 0."""


class Phase(msgspec.Struct, frozen=True, tag="phase"):
    """One finished phase of the cold start: import, verify, load, warm_up."""

    name: str
    seconds: float


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The engine is loaded and warm. Sent once."""

    protocol: int
    rows: int  # how many rows one batch carries
    max_steps: int  # of one row
    max_tokens: int  # of one prompt
    sample_rate: int
    device: str
    dtype: str
    digests: str  # whose digests the weights passed: released or own
    rows_end: bool  # False: a random checkpoint; rows end only at their limit
    throughput: float  # audio seconds per second of a full batch, measured by the warm-up
    speaker_std: bytes  # float32; with speaker_mean the distribution that voices are drawn from
    speaker_mean: bytes


class Chunk(msgspec.Struct, frozen=True, tag="chunk"):
    id: int
    seq: int  # 0, 1, 2, ... within the row
    pcm: bytes


class Finish(msgspec.Struct, frozen=True, tag="finish"):
    id: int
    reason: FinishReason
    retries: int
    steps: int
    queued_seconds: float  # from Submit's arrival to its slot
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0  # from its first step to its last, without the vocoder's passes that it took part in
    vocode_seconds: float = 0.0


class Fail(msgspec.Struct, frozen=True, tag="fail"):
    """The row is over without (more) audio. `message` is for logs and holds no text of the user."""

    id: int
    kind: FailKind
    message: str
    phase: RowPhase | None = None  # where its deadline passed


class Refined(msgspec.Struct, frozen=True, tag="refined"):
    """A row of the text stage is over, at its end or its limit."""

    id: int
    token_ids: list[int]


class EncodedVoice(msgspec.Struct, frozen=True, tag="encoded_voice"):
    id: int
    codes: bytes


class StepReport(msgspec.Struct, frozen=True, tag="step_report"):
    """What the engine did since the last report. All engine metrics travel here, so that there is one registry."""

    rows: int  # in a step, on average
    steps: int
    step_seconds: float  # of the decode steps together
    busy_seconds: float  # of everything, vocoder and hand-over included
    audio_seconds: float  # decoded
    waiting_rows: int  # without a slot, at the end
    memory_bytes: dict[str, int]  # by kind: resident, device_allocated, device_reserved


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """At least once a second while the loop turns; a hung step sends none."""

    at: float


ToEngine = Submit | Credit | Cancel | EncodeVoice | Drain
FromEngine = Phase | Hello | Chunk | Finish | Fail | Refined | EncodedVoice | StepReport | Heartbeat


def steps_for(seconds: float) -> int:
    """1 s -> 47 steps. The epsilon keeps 46.875 * 0.64 == 30.000000000000004 at 30."""
    return max(1, math.ceil(seconds * STEPS_PER_SECOND - 1e-9))


def samples_of(steps: int) -> int:
    """T steps give (2T - 1) * 256 samples: the vocoder overlaps its frames."""
    return (2 * steps - 1) * 256
