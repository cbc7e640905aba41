"""What one pod can do: a closed loop of a few clients, more at each step. Knows nothing about the cluster.

    python -m bench.capacity --url http://demo.default.svc --max-seconds 1

Each client sends its next request when the last one is answered, so the service is full but never flooded.
Prints one JSON line a step and at the end `{"summary": {"rps": ...}}`: the best rate of any step.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

if not __package__:  # run as a file, as in bench/loadgen.py
    sys.path.insert(0, str(Path(__file__).absolute().parent.parent))

from bench.client import Client, Speech, checked_url
from bench.loadgen import print_line
from bench.plan import number_within
from bench.tally import OK, REJECTED, Json, Tally, spread
from bench.texts import BUILT_IN, checked

ENOUGH_GAIN = 1.05  # a step that brings less than 5 % more ends the ramp: the pod is saturated
LONGEST_PAUSE = 1.0  # after a refusal: long enough not to flood, short enough to keep the pod full
FAILURE_PAUSE = 0.2


@dataclass(frozen=True, slots=True)
class Step:
    """One concurrency, held for a while; the first seconds are left out."""

    concurrency: int
    rps: float
    tally: Tally

    def as_json(self) -> Json:
        counts = self.tally.counts()
        return {
            "concurrency": self.concurrency,
            "rps": round(self.rps, 3),
            **{key: counts[key] for key in ("ok", "rejected_429", "failed", "cut")},
            "errors": self.tally.errors(),
            "latency_s": spread(self.tally.latencies),
        }


async def measure(
    client: Client,
    texts: Sequence[str],
    concurrencies: Sequence[int],
    *,
    step_seconds: float,
    warm_up_seconds: float,
    emit: Callable[[Json], None],
) -> Json:
    """Raises concurrency until it no longer helps; the best step is the capacity."""
    steps: list[Step] = []
    for concurrency in concurrencies:
        steps.append(await hold(client, texts, concurrency, step_seconds, warm_up_seconds))
        emit(steps[-1].as_json())
        if steps[-1].rps == 0 or _full(steps):
            break
    best = max(steps, key=lambda step: step.rps)
    return {
        "rps": round(best.rps, 3),
        "concurrency": best.concurrency,
        "saturated": _full(steps),
        "steps": [step.as_json() for step in steps],
    }


def _full(steps: Sequence[Step]) -> bool:
    """Whether the last step no longer brought more."""
    return len(steps) > 1 and steps[-1].rps < ENOUGH_GAIN * steps[-2].rps


async def hold(client: Client, texts: Sequence[str], concurrency: int, seconds: float, warm_up_seconds: float) -> Step:
    """`concurrency` clients for the warm-up and `seconds` more; only what ends in the latter is counted."""
    tally, begun, numbers = Tally(), time.monotonic(), count()
    counted_from, until = begun + warm_up_seconds, begun + warm_up_seconds + seconds

    async def one_client() -> None:
        while (sent := time.monotonic()) < until:
            answer = await client.speak(texts[next(numbers) % len(texts)])
            now = time.monotonic()
            if counted_from <= now <= until:
                tally.start(lag=0.0)
                tally.end(answer.kind, now - begun, now - sent)
            if answer.kind == REJECTED:
                await asyncio.sleep(min(answer.retry_after_s or LONGEST_PAUSE, LONGEST_PAUSE))
            elif answer.kind != OK:
                await asyncio.sleep(FAILURE_PAUSE)

    await asyncio.gather(*(one_client() for _ in range(concurrency)))
    return Step(concurrency, tally.kinds[OK] / seconds, tally)


def _concurrencies(text: str) -> list[int]:
    values = [int(part) for part in text.split(",")]
    if not values or sorted(set(values)) != values or not 1 <= values[0] <= values[-1] <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} must be rising numbers from 1 to 1000, such as 8,16")
    return values


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.capacity", description="The rate at which one pod is full.")
    add = parser.add_argument
    add("--url", required=True, help="http://host[:port] of the service")
    add("--concurrency", type=_concurrencies, default=[8, 16, 32], help="clients at each step (8,16,32)")
    add("--step-seconds", type=number_within(0.1, 600), default=10.0, help="measured at each step (default 10)")
    add("--warm-up-seconds", type=number_within(0, 600), default=2.0, help="before each step, not measured (default 2)")
    add("--text", action="append", help="what to speak; may be given several times (default: a mixed list)")
    add("--max-seconds", type=number_within(0.1, 600), help="the longest audio a request may give")
    add("--timeout-seconds", type=number_within(0.1, 600), default=45.0, help="for one request, all in all")
    return parser


async def _run(args: argparse.Namespace) -> Json:
    client = Client(args.url, Speech(max_seconds=args.max_seconds), timeout_seconds=args.timeout_seconds)
    async with contextlib.aclosing(client):
        return await measure(
            client,
            args.text or BUILT_IN,
            args.concurrency,
            step_seconds=args.step_seconds,
            warm_up_seconds=args.warm_up_seconds,
            emit=print_line,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 1 when not a single request was answered: there is no capacity to report."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        checked_url(args.url)
        checked(args.text or BUILT_IN)
    except ValueError as problem:
        parser.error(str(problem))
    capacity = asyncio.run(_run(args))
    print_line({"summary": capacity})
    return 0 if capacity["rps"] else 1


if __name__ == "__main__":
    sys.exit(main())
