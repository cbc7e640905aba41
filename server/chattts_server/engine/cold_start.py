"""From nothing to a warm model: import -> load -> graphs -> warm_up, with verify beside them. Each phase is reported.

Nothing is said to be ready before the digests hold."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

from chattts_server.engine.checkpoint import CannotServe, Checkpoint, Verification
from chattts_server.engine.fixed_memory import populate_beside
from chattts_server.engine.kernels import fastest
from chattts_server.engine.memory import free_memory
from chattts_server.engine.nouns import (
    PROTOCOL,
    SAMPLE_RATE,
    Hello,
    Limits,
    Phase,
    Sampling,
    Submit,
    Voice,
    steps_for,
)
from chattts_server.engine.precision import Precision, chosen_precision
from chattts_server.engine.refusal import MAX_STEPS, MAX_TOKENS
from chattts_server.engine.sizes import speaker_statistics
from chattts_server.engine.slots import Slots, row_bytes
from chattts_server.engine.speech_model import DeviceLost, Piece
from chattts_server.engine.threads import cpu_threads
from chattts_server.engine.weights import file_bytes

# More rows give throughput; each of them then takes longer.
ROWS_ON_CPU, ROWS_ON_GPU = 16, 32
MEMORY_SHARE = 0.85  # of what is free: the rest is for passes and for the libraries
WEIGHT_COPIES = 2  # the files as they are read, and the order that products want them in
MEASURE_SECONDS = 0.3  # of each part: some periods of a CPU quota
MEASURE_TIMES = 256  # at most: a row goes no further than its slot
# As short as a prompt can be that has something to prefill, and that has nothing: [Stts] and [Ptts].
_ROW = Submit(0, [21131, 21132], Voice(), Sampling(), Limits(1), None, 0)
_MATE = Submit(0, [21132], Voice(), Sampling(), Limits(1), None, 0)


def run(
    send: Callable[[Phase], None],
    options: argparse.Namespace,
    checkpoint: Checkpoint,
    verification: Verification,
    began: float,
) -> tuple[Slots, Hello]:
    """`began`: when the process started, so that the imports above count. Raises CannotServe with a line for people."""

    def done(phase: str) -> None:
        nonlocal began
        now = time.monotonic()
        send(Phase(phase, now - began))
        began = now

    torch.set_num_threads(cpu_threads())
    device = chosen_device(options.device)
    precision = chosen_precision(options.dtype, device)
    done("import")
    try:
        assets = checkpoint.folder / "asset"
        kernels = fastest(precision, device)
        most = options.rows or fitting_rows(assets, precision, device, by_kernels=kernels is not None)
        model = Slots(assets, options.rows, device, precision, checkpoint.rows_end, most=most, kernels=kernels)
    except torch.AcceleratorError as error:
        raise DeviceLost(str(error)) from error
    except Exception:
        verification.wait()  # a file that is not what it should be is the better explanation
        raise
    if model.capture_seconds is not None:
        send(Phase("graphs", model.capture_seconds))
        began += model.capture_seconds
    done("load")
    verification.wait()
    send(Phase("verify", verification.seconds))
    began = time.monotonic()
    throughput = warm_up(model)
    done("warm_up")
    std, mean = speaker_statistics(checkpoint.sizes)
    return model, Hello(
        protocol=PROTOCOL, rows=model.slots, max_steps=MAX_STEPS, max_tokens=MAX_TOKENS, sample_rate=SAMPLE_RATE,
        device=str(device), dtype=precision, digests=checkpoint.origin, rows_end=checkpoint.rows_end,
        throughput=throughput, speaker_std=std.astype("<f4").tobytes(), speaker_mean=mean.astype("<f4").tobytes(),
    )  # fmt: skip


def settle(model: Slots) -> None:
    """What need not be there before the first request."""
    if model.reserved:
        populate_beside(model.reserved)


def chosen_device(asked: str) -> torch.device:
    if asked == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise CannotServe(
            f"CHATTTS_DEVICE={asked} asks for a CUDA device and there is none; set it to cpu to compute on the CPU"
        )
    return torch.device("cuda", 0)


def fitting_rows(assets: Path, precision: Precision, device: torch.device, by_kernels: bool) -> int:
    """As many as usual, or as there is memory for."""
    usual = ROWS_ON_CPU if device.type == "cpu" else ROWS_ON_GPU
    free = free_memory() if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
    weights = file_bytes(assets) * WEIGHT_COPIES
    fitting = int((free * MEMORY_SHARE - weights) / row_bytes(assets, precision, device, by_kernels))
    if fitting < 1:
        raise CannotServe(f"{free / 2**30:.1f} GiB of memory are free: too little for the weights and one row")
    return min(usual, fitting)


def warm_up(model: Slots) -> float:
    """Audio seconds per second of a full batch: admission's first guess. The first passes pay one-time costs."""
    slots = range(model.slots)
    for slot in slots:
        for _ in range(model.join(slot, _MATE if slot else _ROW, seed=slot)):
            model.prefill(slot)
    model.step(slots)
    step_seconds = _seconds(lambda: model.step(slots))
    steps = steps_for(1.0)

    def vocode() -> None:
        model.rewind(0)
        model.vocode([Piece(0, 0, steps, last=True)])

    vocode()
    return model.slots / (steps * step_seconds + model.slots * _seconds(vocode))


def _seconds(act: Callable[[], object]) -> float:
    """On average: a fraction of a core is fast for a moment and then made to wait."""
    began, times = time.monotonic(), 0
    while times < 2 or (time.monotonic() - began < MEASURE_SECONDS and times < MEASURE_TIMES):
        act()
        times += 1
    return (time.monotonic() - began) / times
