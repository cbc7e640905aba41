"""`make bench-engine`: one run, interleaved, every arm on the same random full-size checkpoint with forced lengths.

Writes bench/results/engine.json and docs/benchmarks.md. Absolute figures are this machine's; the ratios count.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bench.engine import cold, measures
from bench.engine.arms import Arm, NativeBatcher, NativeStream, Ours, Request
from bench.engine.compare import Ratio, ratio
from bench.engine.measures import TEXT, Measured, say
from bench.engine.report import write_report
from bench.engine.step_cost import memory_gb_per_second, step_cost
from bench.machine import checkpoint_of, processor
from chattts_server.engine.checkpoint import CannotServe
from chattts_server.engine.cold_start import fitting_rows
from chattts_server.engine.kernels import fastest
from chattts_server.engine.native import load_chat
from chattts_server.engine.precision import BY_DEVICE, Precision, chosen_precision
from chattts_server.engine.slots import Slots
from chattts_server.engine.threads import cpu_threads

ROOT = Path(__file__).parents[2]
SHORT: dict[Precision, str] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "int8": "int8"}


def main() -> int:
    arguments = _arguments()
    torch.set_num_threads(cpu_threads())
    device = torch.device(arguments.device)
    checkpoint = checkpoint_of(arguments.model, arguments.size)
    ours = _ours(checkpoint, device)
    chat = load_chat(checkpoint, device)
    batcher, stream = NativeBatcher(chat), NativeStream(chat)
    usual = ours[chosen_precision("auto", device)]
    listened_to = {
        name: Ours(f"{arm.name}, streamed", name, arm.model, checkpoint, True)
        for name, arm in ours.items()
        if name in (usual.precision, "int8")  # what is chosen unasked, and the fastest
    }
    streamed = listened_to[usual.precision]
    arms: tuple[Arm, ...] = (*ours.values(), *listened_to.values(), batcher, stream)
    for arm in arms:
        arm.run([Request(0, TEXT, 40, 0.0)])  # what is paid once
    repeats = arguments.repeats
    costs = {arm.name: step_cost(arm) for arm in ours.values()}
    saturated = measures.saturated([*ours.values(), streamed, batcher], repeats, arguments.requests)
    steps = measures.one_row([*ours.values(), batcher], repeats)
    first = measures.first_audio([*listened_to.values(), batcher, stream], stream, repeats, arguments.open_requests)
    capacity = statistics.median(saturated[streamed.name])
    listened = measures.streams(streamed, capacity, arguments.device, repeats, arguments.requests)
    here = functools.partial(cold.ours, checkpoint, arguments.device, TEXT)
    native = functools.partial(cold.native, checkpoint, arguments.device, TEXT)
    starts = measures.repeated_starts({usual.name: here, "native": native}, repeats)
    ratios = {
        **{
            f"throughput_{SHORT[name]}": ratio(saturated[arm.name], saturated[batcher.name])
            for name, arm in ours.items()
        },
        "streamed_over_offline": ratio(saturated[streamed.name], saturated[usual.name]),
        **{f"steps_b1_{SHORT[name]}": ratio(steps[arm.name], steps[batcher.name]) for name, arm in ours.items()},
        "first_audio_p99": ratio(first[stream.name], first[streamed.name]),
        **{
            "first_audio_p99_over_batcher" + ("" if arm is streamed else f"_{SHORT[name]}"): ratio(
                first[batcher.name], first[arm.name]
            )
            for name, arm in listened_to.items()
        },
        "cold_start": ratio(starts[usual.name], starts["native"]),
    }
    share = f"{measures.LOAD} of its own capacity"
    measured = {
        "audio seconds per second, saturated": saturated,
        "steps per second, one row": steps,
        f"first audio p99 in seconds at {measures.LOAD} of native streaming": first,
        f"underruns of players at {measures.PLAYER_SPEED[arguments.device]}x real time, at {share}": listened[
            "underruns"
        ],
        f"inter-chunk p99 in seconds, at {share}": listened["inter-chunk p99, s"],
        "cold start to the first second of audio, in seconds": starts,
    }
    result = {
        "slots": {arm.name: arm.model.slots for arm in ours.values()},
        "step": costs,
        "memory_gb_per_second": memory_gb_per_second(device),
        **_result(arguments, device, measured, ratios),
    }
    write_report(result, ROOT / "bench" / "results" / "engine.json", ROOT / "docs" / "benchmarks.md")
    print(json.dumps(result["ratios"], indent=1))
    return 0


def _ours(checkpoint: Path, device: torch.device) -> dict[Precision, Ours]:
    """One arm for each precision that this machine computes in, with as many slots as a server takes by itself."""
    arms: dict[Precision, Ours] = {}
    assets = checkpoint / "asset"
    for asked in BY_DEVICE[device.type]:
        try:
            precision = chosen_precision(asked, device)
        except CannotServe as error:
            say(str(error))
            continue
        kernels = fastest(precision, device)
        most = fitting_rows(assets, precision, device, by_kernels=kernels is not None)
        model = Slots(assets, None, device, precision, rows_end=False, most=most, kernels=kernels)
        arms[precision] = Ours(f"ours, {precision}", precision, model, checkpoint, streamed=False)
    return arms


def _result(
    arguments: argparse.Namespace, device: torch.device, measured: dict[str, Measured], ratios: dict[str, Ratio]
) -> dict[str, Any]:
    return {
        "measured_at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "cpu": f"{processor()}, {torch.backends.cpu.get_cpu_capability()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "checkpoint": f"random, {arguments.size}",
        "repeats": arguments.repeats,
        "requests": {"saturated": arguments.requests, "open_loop": arguments.open_requests},
        "arms": measured,
        "ratios": {name: round(one.value, 3) for name, one in ratios.items()},
        "intervals": {name: [round(one.low, 3), round(one.high, 3)] for name, one in ratios.items()},
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description=__doc__)
    parser.add_argument(
        "--model", type=Path, help="a random checkpoint (chattts-server make-checkpoint); made if absent"
    )
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--requests", type=int, default=32, help="of a saturated run: enough to keep all slots full")
    parser.add_argument("--open-requests", type=int, default=6, help="of an open-loop run")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
