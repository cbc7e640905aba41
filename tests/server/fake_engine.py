"""An engine process that behaves: the real loop (process.Engine) with a model that only takes time and hums.

Some characters of a text make things happen, so that a test chooses by what it asks to be spoken:
毒 the batch raises, 坏 the row is refused as invalid, 亡 the process dies, 停 the step hangs.
--log gets a line per event.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
import time
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
from chattts_server.engine.process import Engine
from chattts_server.engine.speech_model import Spoken
from chattts_server.engine.vocabulary import bert_entries
from chattts_server.engine.wire import EnginePort

WIDTH = 8
ENTRIES = bert_entries()
POISON, INVALID, DIE, HANG = (ENTRIES.index(character) for character in "毒坏亡停")


class HummingModel:
    def __init__(self, seconds_per_step: float, log: Callable[[str], None]) -> None:
        self._seconds_per_step = seconds_per_step
        self._log = log

    def problem(self, row: Submit) -> str | None:
        return "a bad row" if INVALID in row.token_ids else None

    def speak(self, rows: Sequence[Submit], on_step: Callable[[int], frozenset[int]]) -> list[Spoken]:
        ids = {token for row in rows for token in row.token_ids}
        self._log(f"speak {len(rows)}")
        if POISON in ids:
            raise RuntimeError("poison")
        if DIE in ids:
            os._exit(1)
        if HANG in ids:
            time.sleep(3600)
        ends = [row.limits.max_steps for row in rows]
        for step in range(max(ends)):
            time.sleep(self._seconds_per_step)
            for index in on_step(step):
                if step < ends[index]:
                    ends[index] = step
                    self._log(f"stopped after {step}")
            if step >= max(ends):
                break
        return [Spoken(_hum(max(1, end)), max(1, end), "limit") for end in ends]

    def encode_voice(self, pcm: np.ndarray) -> bytes:
        return np.full((4, 3), len(pcm) % 600, "<u2").tobytes()

    def memory_bytes(self) -> dict[str, int]:
        return {"device_allocated": 1}


def _hum(steps: int) -> np.ndarray:
    return (0.3 * np.sin(np.arange(samples_of(steps)) * 0.05)).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--step-seconds", type=float, default=0.0)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--protocol", type=int, default=PROTOCOL)
    parser.add_argument("--throughput", type=float, default=100.0)
    parser.add_argument("--exit", type=int, default=None)
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
        Engine(port, HummingModel(options.step_seconds, log), options.rows).run()
        log("drained")
    except (EOFError, ConnectionError):
        pass


if __name__ == "__main__":
    main()
