"""What the engine's loop asks of a model. chat_model.py is one; tests have one that only hums. Knows no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from chattts_server.engine.nouns import FinishReason, Submit

OnStep = Callable[[int], frozenset[int]]  # called at each decode step: steps made -> rows that are to stop now


class DeviceLost(Exception):
    """Nothing can be computed in this process any more: it ends, and a new one is started."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """One row's result."""

    pcm: np.ndarray  # float32 [samples]
    steps: int
    reason: FinishReason


class SpeechModel(Protocol):
    def problem(self, row: Submit) -> str | None:
        """Why a row may not reach the device; None: it may."""
        ...

    def speak(self, rows: Sequence[Submit], on_step: OnStep) -> list[Spoken]:
        """One batch, from prompts to PCM."""
        ...

    def encode_voice(self, pcm: np.ndarray) -> bytes: ...

    def memory_bytes(self) -> dict[str, int]: ...
