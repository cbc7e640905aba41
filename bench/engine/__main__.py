"""`make bench-engine`: one run, interleaved, every arm on the same random full-size checkpoint with forced lengths.

Writes bench/results/engine.json and docs/benchmarks.md. Absolute figures are this machine's; the ratios count.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from bench.arrivals import intended_times
from bench.engine import cold
from bench.engine.arms import Arm, Heard, NativeBatcher, NativeStream, Ours, Request, seconds_per_step
from bench.engine.compare import Ratio, interleaved, ratio
from bench.engine.report import write_report
from bench.tally import percentile
from chattts_server.engine.cold_start import fitting_rows
from chattts_server.engine.native import load_chat
from chattts_server.engine.nouns import SAMPLE_RATE
from chattts_server.engine.random_checkpoint import make_checkpoint
from chattts_server.engine.slots import Slots
from chattts_server.engine.threads import cpu_threads
from dev.cluster.paths import Cache

ROOT = Path(__file__).parents[2]
TEXT = "今天天气很好我们去公园走"
SHORTEST, LONGEST = 32, 160  # steps
LOAD = 0.7  # of native's own streaming capacity
ONE_ROW_STEPS = 48


def main() -> int:
    arguments = _arguments()
    torch.set_num_threads(cpu_threads())
    device = torch.device(arguments.device)
    checkpoint = _checkpoint(arguments.model, arguments.size)
    chat = load_chat(checkpoint, device)
    # As many slots as a server takes by itself here.
    slots = fitting_rows(checkpoint / "asset", device)
    model = Slots(checkpoint / "asset", slots, device, torch.float32, rows_end=False)
    ours, streamed = Ours("ours, float32", model, checkpoint, False), Ours("ours, streamed", model, checkpoint, True)
    batcher, stream = NativeBatcher(chat), NativeStream(chat)
    for arm in (ours, streamed, batcher, stream):
        arm.run([Request(0, TEXT, 40, 0.0)])  # what is paid once
    saturated = _saturated([ours, streamed, batcher], arguments)
    steps = _one_row(ours, batcher, arguments.repeats)
    first = _first_audio([streamed, batcher, stream], arguments)
    starts = _cold_starts(checkpoint, arguments)
    ratios = {
        "throughput_fp32": ratio(saturated[ours.name], saturated[batcher.name]),
        "streamed_over_offline": ratio(saturated[streamed.name], saturated[ours.name]),
        "steps_b1_fp32": ratio(steps[ours.name], steps[batcher.name]),
        "first_audio_p99": ratio(first[streamed.name], first[stream.name]),
        "first_audio_p99_over_batcher": ratio(first[streamed.name], first[batcher.name]),
        "cold_start": ratio(starts[ours.name], starts["native"]),
    }
    measured = {
        "audio seconds per second, saturated": saturated,
        "steps per second, one row": steps,
        f"first audio p99 in seconds at {LOAD} of native streaming": first,
        "cold start to the first second of audio, in seconds": starts,
    }
    result = {"slots": slots, **_result(arguments, device, measured, ratios)}
    write_report(result, ROOT / "bench" / "results" / "engine.json", ROOT / "docs" / "benchmarks.md")
    print(json.dumps(result["ratios"], indent=1))
    return 0


def _saturated(arms: Sequence[Arm], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Audio seconds per second with all requests there at once."""
    rates = defaultdict(list)
    for repeat in range(arguments.repeats):
        requests = _requests(arguments.requests, seed=repeat, rate=None)
        for index in interleaved(len(arms), repeat):
            heard = arms[index].run(requests)
            rates[arms[index].name].append(_audio_seconds(heard) / max(one.end for one in heard))
            _say(f"saturated {repeat + 1}/{arguments.repeats} {arms[index].name}: {rates[arms[index].name][-1]:.3f}")
    return dict(rates)


def _one_row(ours: Ours, batcher: NativeBatcher, repeats: int) -> dict[str, list[float]]:
    """Decode steps per second of a row alone. Of an arm that also vocodes at the end, that is part of a step here."""
    rates = defaultdict(list)
    arms: list[Arm] = [ours, batcher]
    for repeat in range(repeats):
        for index in interleaved(2, repeat):
            arm = arms[index]
            seconds = seconds_per_step(lambda steps, arm=arm: arm.run([Request(1, TEXT, steps, 0.0)]), ONE_ROW_STEPS)  # type: ignore[misc]
            rates[arm.name].append(1 / seconds)
            _say(f"one row {repeat + 1}/{repeats} {arm.name}: {1 / seconds:.2f} steps/s")
    return dict(rates)


def _first_audio(arms: Sequence[Arm], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """p99 of the first audio in an open loop at a share of what native streaming carries."""
    stream = arms[-1]
    alone = stream.run(_requests(3, seed=99, rate=None))
    rate = LOAD * len(alone) / max(one.end for one in alone)
    _say(f"native streaming carries {rate / LOAD:.3f} requests/s; offered {rate:.3f}/s")
    worst = defaultdict(list)
    for repeat in range(arguments.repeats):
        requests = _requests(arguments.open_requests, seed=50 + repeat, rate=rate)
        for index in interleaved(len(arms), repeat):
            p99 = percentile(sorted(one.first for one in arms[index].run(requests)), 0.99)
            assert p99 is not None  # there were requests
            worst[arms[index].name].append(p99)
            _say(
                f"first audio {repeat + 1}/{arguments.repeats} {arms[index].name}: {worst[arms[index].name][-1]:.2f} s"
            )
    return dict(worst)


def _cold_starts(checkpoint: Path, arguments: argparse.Namespace) -> dict[str, list[float]]:
    starts = {"ours, float32": cold.ours, "native": cold.native}
    seconds = defaultdict(list)
    for repeat in range(arguments.repeats):
        for index in interleaved(len(starts), repeat):
            name = list(starts)[index]
            seconds[name].append(starts[name](checkpoint, arguments.device, TEXT))
            _say(f"cold start {repeat + 1} {name}: {seconds[name][-1]:.1f} s")
    return dict(seconds)


def _requests(count: int, seed: int, rate: float | None) -> list[Request]:
    """Mixed lengths; `rate` None: all at once, else Poisson."""
    chooser = random.Random(seed)
    times = cycle([0.0]) if rate is None else intended_times(rate, "poisson", math.inf, seed)
    return [
        Request(number, TEXT, chooser.randint(SHORTEST, LONGEST), at) for number, at in enumerate(islice(times, count))
    ]


def _audio_seconds(heard: Sequence[Heard]) -> float:
    return sum(samples for one in heard for _, samples in one.chunks) / SAMPLE_RATE


def _result(
    arguments: argparse.Namespace, device: torch.device, measured: dict[str, Any], ratios: dict[str, Ratio]
) -> dict[str, Any]:
    return {
        "measured_at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "cpu": f"{_cpu_name()}, {torch.backends.cpu.get_cpu_capability()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "checkpoint": f"random, {arguments.size}",
        "repeats": arguments.repeats,
        "requests": {"saturated": arguments.requests, "open_loop": arguments.open_requests},
        "arms": measured,
        "ratios": {name: round(one.value, 3) for name, one in ratios.items()},
        "intervals": {name: [round(one.low, 3), round(one.high, 3)] for name, one in ratios.items()},
    }


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _checkpoint(given: Path | None, size: str) -> Path:
    """The folder that was named, or a random checkpoint of the project's cache, made once."""
    if given is not None:
        return given
    folder = Cache.from_environment(os.environ).root / "checkpoints" / f"{size}-1"
    if not (folder / "sha256_map.json").exists():
        _say(f"making a random {size} checkpoint in {folder}")
        make_checkpoint(folder, "full" if size == "full" else "tiny", seed=1)
    return folder


def _say(text: str) -> None:
    print(f"[bench] {text}", file=sys.stderr, flush=True)


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
