"""When requests are meant to be sent. Pure: it knows neither the clock nor how long an answer takes."""

from __future__ import annotations

import random
from collections.abc import Iterator

ARRIVALS = ("poisson", "constant")


def intended_times(rate: float, arrival: str, seconds: float, seed: int) -> Iterator[float]:
    """Seconds after the start, in order, below `seconds`; the same arguments give the same times."""
    if arrival == "constant":
        yield from _constant(rate, seconds)
    elif arrival == "poisson":
        yield from _poisson(rate, seconds, random.Random(seed))
    else:
        raise ValueError(f"arrival is {arrival!r}, must be one of {', '.join(ARRIVALS)}")


def _constant(rate: float, seconds: float) -> Iterator[float]:
    number = 0
    while (at := number / rate) < seconds:
        yield at
        number += 1


def _poisson(rate: float, seconds: float, rng: random.Random) -> Iterator[float]:
    at = rng.expovariate(rate)
    while at < seconds:
        yield at
        at += rng.expovariate(rate)
