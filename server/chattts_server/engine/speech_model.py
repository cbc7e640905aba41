"""What the loop needs of a model: rows in slots, from prompt to PCM. Data and one protocol, no tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from chattts_server.engine.nouns import Submit

Outcome = Literal["made", "end", "broken"]  # one more step of audio; the end code; values that are not finite

LOOK_AHEAD_STEPS = 32  # samples this far before the end of what is known no longer change audibly


class DeviceLost(Exception):
    """Nothing can be computed in this process any more: it ends, and a new one is started."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What is to be vocoded of one row. Filled by process.py."""

    slot: int
    first_step: int
    end_step: int
    last: bool  # the row is over: nothing is kept back for what might follow


class SpeechModel(Protocol):
    slots: int  # rows that can be in work together

    def problem(self, row: Submit) -> str | None:
        """Why a row may not reach the device; None: it may."""
        ...

    def join(self, slot: int, row: Submit, seed: int) -> int:
        """Give a slot to a row; whatever was there is gone. Returns how many prefill calls it needs."""
        ...

    def prefill(self, slot: int) -> None:
        """The next chunk of the row's prompt."""
        ...

    @property
    def late(self) -> int:
        """How many steps may be launched before the outcomes of the first of them are asked for."""
        ...

    def launch(self, slots: Sequence[int]) -> None:
        """One decode step of rows whose prompt is filled. When it raises, no row has moved."""
        ...

    def outcomes(self) -> list[Outcome]:
        """Of the oldest launched step that was not asked for yet, in the order of its slots; waits for it.

        A row may have gone on by `late` steps since: what they made of a row that is over is never looked at.
        """
        ...

    def tokens(self, slot: int, steps: int) -> list[int]:
        """What a row of the text stage has made."""
        ...

    def retry(self, slot: int, seed: int) -> None:
        """Decode starts again from the filled prompt, with the noise of `seed`; as if no step had been made."""
        ...

    def vocode(self, pieces: Sequence[Piece]) -> list[np.ndarray]:
        """New float32 samples of each row, perhaps none. After it has raised, each row needs `rewind`.

        FloatingPointError: some are not finite, and nobody is to hear them."""
        ...

    def rewind(self, slot: int) -> None:
        """The next piece of this slot starts at step 0 again, and its samples at the row's first."""
        ...

    def encode_voice(self, pcm: np.ndarray) -> bytes: ...

    def memory_bytes(self) -> dict[str, int]: ...
