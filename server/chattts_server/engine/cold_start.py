"""From nothing to a warm model: import -> verify -> load -> warm_up. Each phase is reported when it is done."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

from chattts_server.engine.checkpoint import CannotServe, open_checkpoint, verify
from chattts_server.engine.nouns import (
    PROTOCOL,
    SAMPLE_RATE,
    STEPS_PER_SECOND,
    Hello,
    Limits,
    Phase,
    Sampling,
    Submit,
    Voice,
    steps_for,
)
from chattts_server.engine.refusal import MAX_STEPS, MAX_TOKENS
from chattts_server.engine.sizes import speaker_statistics
from chattts_server.engine.slots import Slots, row_bytes
from chattts_server.engine.speech_model import Piece
from chattts_server.engine.threads import cpu_threads
from chattts_server.engine.weights import file_bytes

# More rows give throughput; each of them then takes longer.
ROWS_ON_CPU, ROWS_ON_GPU = 16, 32
MEMORY_SHARE = 0.85  # of what is free on a GPU: the rest is for passes and for the library itself
WARM_UP_SECONDS = 10.0  # a slow machine measures fewer steps instead of staying away for longer
_PROMPT = [21131, 21143, 21173, *range(300, 312), 21132]  # [Stts][spk_emb][speed_5] twelve characters [Ptts]


def run(send: Callable[[Phase], None], options: argparse.Namespace, began: float) -> tuple[Slots, Hello]:
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
    done("import")
    verify(checkpoint)
    done("verify")
    rows = options.rows or _rows(checkpoint.folder / "asset", device)
    model = Slots(checkpoint.folder / "asset", rows, device, torch.float32, checkpoint.rows_end)
    done("load")
    throughput = _warm_up(model)
    done("warm_up")
    std, mean = speaker_statistics(checkpoint.sizes)
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


def _rows(assets: Path, device: torch.device) -> int:
    """As many as usual, or as the device has memory for."""
    if device.type == "cpu":
        return ROWS_ON_CPU
    free, _ = torch.cuda.mem_get_info(device)
    fitting = int((free * MEMORY_SHARE - file_bytes(assets)) / row_bytes(assets, torch.float32))
    if fitting < 1:
        raise CannotServe(f"the device has {free / 2**30:.1f} GiB of free memory: too little for one row")
    return min(ROWS_ON_GPU, fitting)


def _warm_up(model: Slots) -> float:
    """Audio seconds per second of a full batch: admission's first guess. The first rows pay one-time costs."""
    _timed_rows(model, 4)
    seconds = _timed_rows(model, 4)
    steps = steps_for(1.0) if seconds / 4 * steps_for(1.0) < WARM_UP_SECONDS else 4
    return model.slots * steps / STEPS_PER_SECOND / _timed_rows(model, steps)


def _timed_rows(model: Slots, steps: int) -> float:
    """Seconds for rows in all slots, from prompt to PCM."""
    row = Submit(0, _PROMPT, Voice(), Sampling(), Limits(steps, steps), None, 0)
    slots = range(model.slots)
    began = time.monotonic()
    for slot in slots:
        for _ in range(model.join(slot, row, seed=slot)):
            model.prefill(slot)
    for _ in range(steps):
        model.step(slots)
    model.vocode([Piece(slot, 0, steps, last=True) for slot in slots])
    return time.monotonic() - began
