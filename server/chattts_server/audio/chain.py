"""From the model's sound to the bytes that are sent: gate -> speed and rate -> format. Knows no request.

A chain is made for one answer and fed with the engine's chunks: float32 PCM, mono, 24 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from chattts_server.audio.encode import FORMATS, whole_wav
from chattts_server.audio.gate import SpectralGate
from chattts_server.audio.stretch import Stretch
from chattts_server.engine.nouns import SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Sound:
    """How the client wants it, in range. Filled by api/."""

    format: str = "pcm"
    speed: float = 1.0
    sample_rate: int = SAMPLE_RATE
    gate_window: int | None = None  # samples at 24 kHz; None: nothing is lowered

    @property
    def media_type(self) -> str:
        return FORMATS[self.format].media_type

    @property
    def is_plain(self) -> bool:
        """The model's own samples: nothing is filtered."""
        return self.gate_window is None and self.speed == 1.0 and self.sample_rate == SAMPLE_RATE


class Stage(Protocol):
    def push(self, samples: np.ndarray) -> np.ndarray: ...

    def finish(self) -> np.ndarray: ...


class Chain:
    def __init__(self, sound: Sound) -> None:
        chosen = FORMATS[sound.format]
        self._stages = _stages(sound)
        self._encoder = chosen.open(sound.sample_rate)
        # A second of audio then costs milliseconds: in a thread, or the event loop would stand still for them.
        self.is_costly = chosen.compressed or not sound.is_plain

    def push(self, pcm: bytes) -> bytes:
        return self._encoder.encode(_through(self._stages, np.frombuffer(pcm, "<f4")))

    def finish(self) -> bytes:
        """What is still inside; the chain is done."""
        return self._encoder.encode(_rest_of(self._stages)) + self._encoder.finish()


def as_whole_wav(sound: Sound, pcm: bytes) -> bytes:
    """All at once, with the exact length in the header."""
    stages = _stages(sound)
    samples = _through(stages, np.frombuffer(pcm, "<f4"))
    if stages:
        samples = np.concatenate([samples, _rest_of(stages)])
    return whole_wav(samples, sound.sample_rate)


def _stages(sound: Sound) -> list[Stage]:
    stages: list[Stage] = []
    if sound.gate_window is not None:
        stages.append(SpectralGate(sound.gate_window))
    if sound.speed != 1.0 or sound.sample_rate != SAMPLE_RATE:
        stages.append(Stretch(sound.speed, sound.sample_rate))
    return stages


def _through(stages: list[Stage], samples: np.ndarray) -> np.ndarray:
    for stage in stages:
        samples = stage.push(samples)
    return samples


def _rest_of(stages: list[Stage]) -> np.ndarray:
    """What the first still holds goes through the others, and so on."""
    samples = np.empty(0, np.float32)
    for stage in stages:
        samples = np.concatenate([stage.push(samples), stage.finish()])
    return samples
