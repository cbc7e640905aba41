"""What is measured, each interleaved over the arms and repeated: {arm: [value of each repeat]}. Prints as it goes."""

from __future__ import annotations

import math
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle, islice

from bench.arrivals import intended_times
from bench.engine.arms import Arm, Heard, Request, seconds_per_step
from bench.engine.compare import interleaved
from bench.engine.playback import gaps, underruns
from bench.tally import percentile
from chattts_server.engine.nouns import SAMPLE_RATE, STEPS_PER_SECOND

TEXT = "今天天气很好我们去公园走"
SHORTEST, LONGEST = 32, 160  # steps
LOAD = 0.7  # of a capacity, in open loops
ONE_ROW_STEPS = 48
PLAYER_SPEED = {"cpu": 0.3, "cuda": 1.0}  # times real time

Measured = dict[str, list[float]]


def saturated(arms: Sequence[Arm], repeats: int, requests: int) -> Measured:
    """Audio seconds per second with all requests there at once."""

    def rate(arm: Arm, repeat: int) -> float:
        heard = arm.run(mixed(requests, seed=repeat, rate=None))
        return audio_seconds(heard) / max(one.end for one in heard)

    return _repeated("saturated, audio s/s", {arm.name: partial(rate, arm) for arm in arms}, repeats)


def one_row(arms: Sequence[Arm], repeats: int) -> Measured:
    """Decode steps per second of a row alone. Of an arm that also vocodes at the end, that is part of a step here."""

    def rate(arm: Arm, _repeat: int) -> float:
        return 1 / seconds_per_step(lambda steps: arm.run([Request(1, TEXT, steps, 0.0)]), ONE_ROW_STEPS)

    return _repeated("one row, steps/s", {arm.name: partial(rate, arm) for arm in arms}, repeats)


def first_audio(arms: Sequence[Arm], stream: Arm, repeats: int, requests: int) -> Measured:
    """p99 of the first audio, in seconds, in an open loop at a share of what `stream` carries alone."""
    alone = stream.run(mixed(3, seed=99, rate=None))
    rate = LOAD * len(alone) / max(one.end for one in alone)
    say(f"{stream.name} carries {rate / LOAD:.3f} requests/s; offered {rate:.3f}/s")

    def worst(arm: Arm, repeat: int) -> float:
        heard = arm.run(mixed(requests, seed=50 + repeat, rate=rate))
        return _p99([one.first for one in heard])

    return _repeated("first audio p99, s", {arm.name: partial(worst, arm) for arm in arms}, repeats)


def streams(arm: Arm, capacity: float, device: str, repeats: int, requests: int) -> dict[str, Measured]:
    """Listeners at a share of the arm's own capacity (audio seconds per second): who has to wait, and gaps."""
    rate = LOAD * capacity / ((SHORTEST + LONGEST) / 2 / STEPS_PER_SECOND)
    measured: dict[str, Measured] = {"underruns": {arm.name: []}, "inter-chunk p99, s": {arm.name: []}}
    for repeat in range(repeats):
        heard = arm.run(mixed(requests, seed=70 + repeat, rate=rate))
        chunks = [[(when, samples / SAMPLE_RATE) for when, samples in one.chunks] for one in heard]
        measured["underruns"][arm.name].append(sum(underruns(one, PLAYER_SPEED[device]) for one in chunks))
        measured["inter-chunk p99, s"][arm.name].append(_p99([gap for one in chunks for gap in gaps(one)]))
    say(f"streams of {arm.name} at {rate:.2f} requests/s: {measured}")
    return measured


def repeated_starts(starts: Mapping[str, Callable[[], float]], repeats: int) -> Measured:
    return _repeated("cold start, s", {name: partial(_call, start) for name, start in starts.items()}, repeats)


def mixed(count: int, seed: int, rate: float | None) -> list[Request]:
    """Mixed lengths; `rate` None: all at once, else Poisson."""
    chooser = random.Random(seed)
    times = cycle([0.0]) if rate is None else intended_times(rate, "poisson", math.inf, seed)
    return [
        Request(number, TEXT, chooser.randint(SHORTEST, LONGEST), at) for number, at in enumerate(islice(times, count))
    ]


def audio_seconds(heard: Sequence[Heard]) -> float:
    return sum(samples for one in heard for _, samples in one.chunks) / SAMPLE_RATE


def say(text: str) -> None:
    print(f"[bench] {text}", file=sys.stderr, flush=True)


def _call(start: Callable[[], float], _repeat: int) -> float:
    return start()


def _repeated(what: str, measures: Mapping[str, Callable[[int], float]], repeats: int) -> Measured:
    values: Measured = defaultdict(list)
    names = list(measures)
    for repeat in range(repeats):
        for index in interleaved(len(names), repeat):
            name = names[index]
            values[name].append(measures[name](repeat))
            say(f"{what}, {repeat + 1} of {repeats}, {name}: {values[name][-1]:.3f}")
    return dict(values)


def _p99(values: Sequence[float]) -> float:
    found = percentile(sorted(values), 0.99)
    assert found is not None, "there were no values"
    return found
