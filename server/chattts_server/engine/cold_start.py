"""From nothing to a warm model: import -> verify -> load -> warm_up. Each phase is reported when it is done."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from chattts_server.engine.checkpoint import CannotServe, open_checkpoint, verify
from chattts_server.engine.nouns import (
    PROTOCOL,
    SAMPLE_RATE,
    Hello,
    Limits,
    Phase,
    Sampling,
    Submit,
    Voice,
    samples_of,
    steps_for,
)
from chattts_server.engine.threads import cpu_threads

if TYPE_CHECKING:
    from chattts_server.engine.chat_model import ChatModel

# A batch is answered as a whole: more rows give throughput and make the first of them wait for the last.
ROWS_ON_CPU, ROWS_ON_GPU = 8, 32
WARM_UP_SECONDS = 10.0  # a slow machine measures a shorter batch instead of staying away for longer
_PROMPT = [21131, 21143, 21173, *range(300, 312), 21132]  # [Stts][spk_emb][speed_5] twelve characters [Ptts]


def run(send: Callable[[Phase], None], options: argparse.Namespace, began: float) -> tuple[ChatModel, Hello]:
    """`began`: when the process started, so that the imports above count. Raises CannotServe with a line for people."""

    def done(phase: str) -> None:
        nonlocal began
        now = time.monotonic()
        send(Phase(phase, now - began))
        began = now

    torch.set_num_threads(cpu_threads())
    device = _device(options.device)
    _check_dtype(options.dtype)
    checkpoint = open_checkpoint(Path(options.model))
    # After what may fail at once: ChatTTS takes seconds to import.
    from chattts_server.engine.chat_model import MAX_STEPS, MAX_TOKENS, ChatModel
    from chattts_server.engine.sizes import speaker_statistics

    done("import")
    verify(checkpoint)
    done("verify")
    model = ChatModel(checkpoint, device)
    done("load")
    rows = options.rows or (ROWS_ON_GPU if device.type == "cuda" else ROWS_ON_CPU)
    throughput = _warm_up(model, rows)
    done("warm_up")
    std, mean = speaker_statistics(model.config)
    return model, Hello(
        protocol=PROTOCOL, rows=rows, max_steps=MAX_STEPS, max_tokens=MAX_TOKENS, sample_rate=SAMPLE_RATE,
        device=str(device), dtype="float32", digests=checkpoint.origin, rows_end=checkpoint.rows_end,
        throughput=throughput, speaker_std=std.astype("<f4").tobytes(), speaker_mean=mean.astype("<f4").tobytes(),
    )  # fmt: skip


def _device(asked: str) -> torch.device:
    if asked == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise CannotServe(
            f"CHATTTS_DEVICE={asked} asks for a CUDA device and there is none; set it to cpu to compute on the CPU"
        )
    return torch.device("cuda", 0)


def _check_dtype(asked: str) -> None:
    if asked not in ("auto", "float32"):
        raise CannotServe(f"CHATTTS_DTYPE={asked}: this engine computes in float32 (auto or float32) only")


def _warm_up(model: ChatModel, rows: int) -> float:
    """Audio seconds per second of a full batch: admission's first guess. The first batch pays one-time costs."""
    _timed_batch(model, rows, 4)
    seconds = _timed_batch(model, rows, 4)
    steps = steps_for(1.0) if seconds / 4 * steps_for(1.0) < WARM_UP_SECONDS else 4
    seconds = _timed_batch(model, rows, steps)
    return rows * samples_of(steps) / SAMPLE_RATE / seconds


def _timed_batch(model: ChatModel, rows: int, steps: int) -> float:
    row = Submit(0, _PROMPT, Voice(), Sampling(), Limits(steps, steps), None, 0)
    began = time.monotonic()
    model.speak([row] * rows, lambda _: frozenset())
    return time.monotonic() - began
