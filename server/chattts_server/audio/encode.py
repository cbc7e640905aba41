"""Samples to what the client asked for: mp3, opus, aac, flac, wav or pcm, piece by piece. Knows no request.

Input is float32 mono at the output's sample rate. Everything is encoded from the same 16 bit samples.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import av
import numpy as np

WAV_UNKNOWN_LENGTH = 0xFFFFFFFF


class Encoder(Protocol):
    def encode(self, samples: np.ndarray) -> bytes: ...

    def finish(self) -> bytes:
        """What is still inside; the encoder is done."""
        ...


@dataclass(frozen=True, slots=True)
class Format:
    media_type: str
    open: Callable[[int], Encoder]  # by sample rate
    compressed: bool = True  # a second of it costs milliseconds


class Pcm:
    """16 bit little-endian, no header."""

    def encode(self, samples: np.ndarray) -> bytes:
        return int16(samples).tobytes()

    def finish(self) -> bytes:
        return b""


class Wav:
    """For streams: the header comes first and does not know the length."""

    def __init__(self, rate: int) -> None:
        self._header = wav_header(None, rate)

    def encode(self, samples: np.ndarray) -> bytes:
        header, self._header = self._header, b""
        return header + int16(samples).tobytes()

    def finish(self) -> bytes:
        return self._header  # of a file without samples


class Compressed:
    """By ffmpeg, into a container that is never sought in: nothing that was sent has to be corrected."""

    def __init__(self, container: str, codec: str, rate: int, bits_per_second: int | None, **options: str) -> None:
        self._rate = rate
        self._out = _Pipe()
        # Else what is encoded waits in a buffer of 32 KiB: four seconds of mp3.
        self._container = av.open(self._out, "w", format=container, options={"flush_packets": "1", **options})
        self._stream = self._container.add_stream(codec, rate=rate, layout="mono")
        if bits_per_second is not None:
            self._stream.bit_rate = bits_per_second

    def encode(self, samples: np.ndarray) -> bytes:
        if len(samples):
            frame = av.AudioFrame.from_ndarray(int16(samples)[None], format="s16", layout="mono")
            frame.sample_rate = self._rate
            self._container.mux(self._stream.encode(frame))
        return self._out.take()

    def finish(self) -> bytes:
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._out.take()


# Rates above which one voice sounds no better. AAC at 8 kHz holds no more than 4 bits a sample.
FORMATS: dict[str, Format] = {
    "mp3": Format("audio/mpeg", lambda rate: Compressed("mp3", "libmp3lame", rate, 64_000, write_xing="0")),
    # Pages of 100 ms: the default of a second would hold the first audio back. bitexact: a serial number of its own
    # would make equal requests give unequal bytes.
    "opus": Format(
        "audio/ogg; codecs=opus",
        lambda rate: Compressed("ogg", "libopus", rate, 32_000, page_duration="100000", fflags="+bitexact"),
    ),
    "aac": Format("audio/aac", lambda rate: Compressed("adts", "aac", rate, min(64_000, 4 * rate))),
    "flac": Format("audio/flac", lambda rate: Compressed("flac", "flac", rate, None, metadata_header_padding="0")),
    "wav": Format("audio/wav", Wav, compressed=False),
    "pcm": Format("audio/pcm", lambda _: Pcm(), compressed=False),
}


def whole_wav(samples: np.ndarray, rate: int) -> bytes:
    """With its exact length in the header."""
    data = int16(samples).tobytes()
    return wav_header(len(data), rate) + data


def wav_header(data_bytes: int | None, rate: int) -> bytes:
    """44 bytes: RIFF, 16 bit mono PCM."""
    size = WAV_UNKNOWN_LENGTH if data_bytes is None else data_bytes
    riff = WAV_UNKNOWN_LENGTH if data_bytes is None else 36 + data_bytes
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", riff, b"WAVE", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
    return head + struct.pack("<4sI", b"data", size)


def int16(samples: np.ndarray) -> np.ndarray:
    """Loud samples are clipped, not wrapped."""
    whole: np.ndarray = np.rint(np.clip(samples, -1.0, 1.0) * 32767).astype("<i2")
    return whole


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
