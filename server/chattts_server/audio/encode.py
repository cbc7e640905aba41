"""PCM to what the client asked for: wav, pcm or mp3, piece by piece. Knows no request.

Input is float32 mono at 24 kHz; wav and pcm are 16 bit little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Protocol

import av
import numpy as np

from chattts_server.engine.nouns import SAMPLE_RATE

WAV_UNKNOWN_LENGTH = 0xFFFFFFFF
MP3_BITS_PER_SECOND = 64_000


class Encoder(Protocol):
    media_type: str

    def encode(self, pcm: bytes) -> bytes: ...

    def finish(self) -> bytes:
        """What is still inside; the encoder is done."""
        ...


class Pcm:
    media_type = "audio/pcm"

    def encode(self, pcm: bytes) -> bytes:
        return _int16(pcm).tobytes()

    def finish(self) -> bytes:
        return b""


class Wav:
    """For streams: the header comes first and does not know the length."""

    media_type = "audio/wav"

    def __init__(self) -> None:
        self._begun = False

    def encode(self, pcm: bytes) -> bytes:
        header = b"" if self._begun else wav_header(None)
        self._begun = True
        return header + _int16(pcm).tobytes()

    def finish(self) -> bytes:
        return b""


class Mp3:
    media_type = "audio/mpeg"

    def __init__(self) -> None:
        self._out = _Pipe()
        self._container = av.open(self._out, "w", format="mp3", options={"write_xing": "0"})
        self._stream = self._container.add_stream("libmp3lame", rate=SAMPLE_RATE, layout="mono")
        self._stream.bit_rate = MP3_BITS_PER_SECOND

    def encode(self, pcm: bytes) -> bytes:
        frame = av.AudioFrame.from_ndarray(_int16(pcm)[None], format="s16p", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        self._container.mux(self._stream.encode(frame))
        return self._out.take()

    def finish(self) -> bytes:
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._out.take()


ENCODERS: dict[str, Callable[[], Encoder]] = {"mp3": Mp3, "wav": Wav, "pcm": Pcm}


def encode_whole(kind: str, pcm: bytes) -> bytes:
    """All at once; a wav then says its exact length."""
    if kind == "wav":
        data = _int16(pcm).tobytes()
        return wav_header(len(data)) + data
    encoder = ENCODERS[kind]()
    return encoder.encode(pcm) + encoder.finish()


def wav_header(data_bytes: int | None) -> bytes:
    """44 bytes: RIFF, 16 bit mono PCM."""
    size = WAV_UNKNOWN_LENGTH if data_bytes is None else data_bytes
    riff = WAV_UNKNOWN_LENGTH if data_bytes is None else 36 + data_bytes
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        riff,
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        SAMPLE_RATE,
        SAMPLE_RATE * 2,
        2,
        16,
        b"data",
        size,
    )


class _Pipe:
    """A file that only grows: without seek the muxer writes nothing that it would have to correct later."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def take(self) -> bytes:
        data = bytes(self._written)
        self._written.clear()
        return data


def _int16(pcm: bytes) -> np.ndarray:
    samples = np.frombuffer(pcm, "<f4")
    whole: np.ndarray = np.rint(np.clip(samples, -1.0, 1.0) * 32767).astype("<i2")
    return whole
