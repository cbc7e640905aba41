"""An engine process that behaves: the real loop (process.Engine) with a model that only takes time and hums.

Some characters of a text make things happen, so that a test chooses by what it asks to be spoken:
毒 the step raises, 坏 the row is refused as invalid, 亡 the process dies, 停 the step hangs, 失 the device is lost,
满 there is memory for a step of this row alone only, 乱 a step makes values that are not finite, 空 the first step is
the end, as often as it is written.
A row of the text stage answers with tokens that follow from its seed, and where 哑 is written with [break_0] alone.
--log gets a line per event, prompts among them.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from chattts_server.engine.nouns import (
    PROTOCOL,
    SAMPLE_RATE,
    Hello,
    Phase,
    Submit,
    samples_of,
)
from chattts_server.engine.process import Engine, abandon
from chattts_server.engine.speech_model import DeviceLost, Outcome, Piece
from chattts_server.engine.vocabulary import BERT_ENTRIES, CHATTTS_TOKENS, bert_entries
from chattts_server.engine.wire import EnginePort

WIDTH = 8
ENTRIES = bert_entries()
POISON, INVALID, DIE, HANG, LOST, FULL, NAN, EMPTY, MUTE = (
    ENTRIES.index(character) for character in "毒坏亡停失满乱空哑"
)
NAN_STEP = 30
BREAK_0 = BERT_ENTRIES + CHATTTS_TOKENS.index("[break_0]")


class HummingModel:
    """Steps that only take time; a row's sound is a hum of its seed and voice, whatever its text."""

    def __init__(self, slots: int, seconds_per_step: float, log: Callable[[str], None], late: int = 0) -> None:
        self.slots = slots
        self.late = late
        self._launched: deque[list[Outcome]] = deque()
        self._seconds_per_step = seconds_per_step
        self._log = log
        self._rows: dict[int, Submit] = {}
        self._steps: dict[int, int] = {}
        self._seeds: dict[int, int] = {}
        self._empty: dict[int, int] = {}
        self._stepped: frozenset[int] = frozenset()

    def problem(self, row: Submit) -> str | None:
        return "a bad row" if INVALID in row.token_ids else None

    def join(self, slot: int, row: Submit, seed: int) -> int:
        self._log(f"join {row.id}")
        self._log(f"{row.stage} prompt {' '.join(map(str, row.token_ids))}")
        if DIE in row.token_ids:
            os._exit(1)
        self._note_stop(self._stepped & {slot})  # it was taken from a row in the same turn
        self._rows[slot], self._steps[slot], self._seeds[slot] = row, 0, seed
        self._empty[slot] = row.token_ids.count(EMPTY)
        return 1

    def prefill(self, slot: int) -> None:
        pass

    def launch(self, slots: Sequence[int]) -> None:
        self._launched.append(self.step(slots))

    def outcomes(self) -> list[Outcome]:
        return self._launched.popleft()

    def step(self, slots: Sequence[int]) -> list[Outcome]:
        ids = {token for slot in slots for token in self._rows[slot].token_ids}
        if POISON in ids:
            raise RuntimeError("poison")
        if HANG in ids:
            time.sleep(3600)
        if LOST in ids:
            raise DeviceLost("unspecified launch failure")
        if FULL in ids and len(slots) > 1:
            raise RuntimeError("CUDA out of memory")
        self._note_stop(self._stepped - set(slots))
        self._stepped = frozenset(slots)
        time.sleep(self._seconds_per_step)
        for slot in slots:
            self._steps[slot] += 1
        return [self._outcome(slot) for slot in slots]

    def _note_stop(self, slots: frozenset[int]) -> None:
        for slot in slots:
            if self._steps[slot] < self._rows[slot].limits.max_steps:
                self._log(f"stopped after {self._steps[slot]}")
        self._stepped -= slots

    def _outcome(self, slot: int) -> Outcome:
        if self._steps[slot] == 1 and self._empty[slot]:
            return "end"
        return "broken" if self._steps[slot] == NAN_STEP and NAN in self._rows[slot].token_ids else "made"

    def retry(self, slot: int, seed: int) -> None:
        self._log(f"retry {self._rows[slot].id}")
        self._steps[slot], self._seeds[slot] = 0, seed
        self._empty[slot] -= 1

    def tokens(self, slot: int, steps: int) -> list[int]:
        if MUTE in self._rows[slot].token_ids:
            return [BREAK_0] * steps
        first = self._seeds[slot] % 300  # the special characters come after
        return [first + step for step in range(steps)]

    def vocode(self, pieces: Sequence[Piece]) -> list[np.ndarray]:
        """Nothing is kept back: a hum needs no look-ahead."""
        return [_hum(piece.first_step, piece.end_step, self._pitch(piece.slot)) for piece in pieces]

    def _pitch(self, slot: int) -> int:
        voice = self._rows[slot].voice
        return self._seeds[slot] + zlib.crc32(voice.codes, zlib.crc32(voice.embedding))

    def rewind(self, slot: int) -> None:
        pass

    def encode_voice(self, pcm: np.ndarray) -> bytes:
        return np.full((4, 3), len(pcm) % 600, "<u2").tobytes()

    def memory_bytes(self) -> dict[str, int]:
        return {"device_allocated": 1}


def _hum(first_step: int, end_step: int, pitch: int) -> np.ndarray:
    first = samples_of(first_step) if first_step else 0
    return (0.3 * np.sin(np.arange(first, samples_of(end_step)) * (0.05 + pitch % 997 / 1e5))).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--step-seconds", type=float, default=0.0)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--protocol", type=int, default=PROTOCOL)
    parser.add_argument("--throughput", type=float, default=100.0)
    parser.add_argument("--exit", type=int, default=None)
    parser.add_argument("--start-seconds", type=float, default=0.0)
    parser.add_argument("--log", type=Path, default=None)
    options = parser.parse_args()

    def log(line: str) -> None:
        if options.log is not None:
            with options.log.open("a") as file:
                file.write(line + "\n")

    faulthandler.enable()  # as process.main does: SIGABRT writes the stack
    log("start")
    if options.exit is not None:
        sys.exit(options.exit)
    time.sleep(options.start_seconds)
    port = EnginePort(options.socket)
    port.send(Phase("load", 0.5))
    port.send(
        Hello(
            protocol=options.protocol, rows=options.rows, max_steps=2048, max_tokens=512, sample_rate=SAMPLE_RATE,
            device="cpu", dtype="float32", digests="own", rows_end=False, throughput=options.throughput,
            speaker_std=np.ones(WIDTH, "<f4").tobytes(), speaker_mean=np.zeros(WIDTH, "<f4").tobytes(),
        )
    )  # fmt: skip
    try:
        Engine(port, HummingModel(options.rows, options.step_seconds, log)).run()
        log("drained")
    except (EOFError, ConnectionError):
        pass
    except DeviceLost as error:
        abandon(error)  # as process.main does


if __name__ == "__main__":
    main()
