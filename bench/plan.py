"""What a run of the load generator does, read from the command line. Knows nothing about sockets or time."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.arrivals import ARRIVALS
from bench.client import Speech, checked_url
from bench.texts import BUILT_IN, checked, read_texts

MAX_SECONDS = 24 * 3600.0
MAX_RATE = 10_000.0


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a run does, fixed before it starts."""

    url: str
    rate: float
    arrival: str
    seconds: float
    seed: int
    texts: tuple[str, ...]
    speech: Speech
    timeout_seconds: float = 45.0
    max_inflight: int = 2000
    retries: int = 0
    keep_alive: bool = False
    request_seeds: bool = False
    slo_seconds: float = 1.2


def read_plan(argv: Sequence[str]) -> Plan:
    """Parses the command line; a bad value ends the program with a line that names it (exit 2)."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        texts = read_texts(args.text_file) if args.text_file else checked(args.text or BUILT_IN)
        url = checked_url(args.url)
    except (OSError, ValueError) as problem:
        parser.error(str(problem))
    return Plan(
        url=url,
        rate=args.rate,
        arrival=args.arrival,
        seconds=args.seconds,
        seed=args.seed,
        texts=texts,
        speech=Speech(stream=args.stream, max_seconds=args.max_seconds, voice=args.voice),
        timeout_seconds=args.timeout_seconds,
        max_inflight=args.max_inflight,
        retries=args.retries,
        keep_alive=args.keep_alive,
        request_seeds=args.request_seeds,
        slo_seconds=args.slo_milliseconds / 1000,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.loadgen", description="Open-loop load on a speech service.")
    add = parser.add_argument
    add("--url", required=True, help="http://host[:port] of the service")
    add("--rate", required=True, type=number_within(0.001, MAX_RATE), help="requests per second, on average")
    add("--arrival", choices=ARRIVALS, default="poisson", help="how requests are spaced (default poisson)")
    add("--seconds", required=True, type=number_within(0.1, MAX_SECONDS), help="how long requests are sent")
    add("--seed", type=int, default=1, help="same seed, same send times and texts")
    add("--text", action="append", help="what to speak; may be given several times (default: a mixed list)")
    add("--text-file", type=Path, help="one text a line, instead of --text")
    add("--voice", help="the voice to ask for (default: the server's)")
    add("--max-seconds", type=number_within(0.1, 600), help="the longest audio a request may give")
    add("--stream", action="store_true", help="PCM from /v1/audio/speech; first-audio times are reported")
    add("--request-seeds", action="store_true", help="send a seed with each request, fixed by --seed")
    add("--retries", type=int, choices=range(6), default=0, help="how often a Retry-After is obeyed")
    add("--timeout-seconds", type=number_within(0.1, 600), default=45.0, help="for one request, all in all")
    add("--max-inflight", type=whole_within(1, 50_000), default=2000, help="beyond it, requests count as not_sent")
    add("--keep-alive", action="store_true", help="reuse connections (a Service then balances badly)")
    add("--slo-milliseconds", type=number_within(1, 600_000), default=1200.0, help="the bound of late_share")
    return parser


def number_within(low: float, high: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        if not low <= value <= high:  # false for NaN too
            raise argparse.ArgumentTypeError(f"{text} is not within {low:g} and {high:g}")
        return value

    return number


def whole_within(low: int, high: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not within {low} and {high}")
        return value

    return whole
