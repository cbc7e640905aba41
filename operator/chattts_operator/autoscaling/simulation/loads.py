"""What is asked for: requests per second by time, and the moments at which requests come. Pure and seeded."""

from __future__ import annotations

import csv
import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

Rate = Callable[[float], float]  # requests per second at a second of the run


class LoadError(ValueError):
    """A load that cannot be read; the text says which line and why."""


@dataclass(frozen=True, slots=True)
class Load:
    name: str
    seconds: float
    rate: Rate

    def arrivals(self, rng: random.Random, before: int = 0) -> Iterator[float]:
        """Poisson, exact for a rate that stands still within each second; for `before` seconds at the first rate."""
        for second in range(-before, math.ceil(self.seconds)):
            rate, at, end = self.rate(max(0, second)), float(second), min(second + 1.0, self.seconds)
            while rate > 0 and (at := at + rng.expovariate(rate)) < end:
                yield at


def constant(rate: float, seconds: float = 3600) -> Load:
    return Load(f"constant {rate:g}", seconds, lambda _: rate)


def step(low: float = 10, high: float = 60, seconds: float = 3600) -> Load:
    """From a sixth of the run to two thirds of it."""
    return Load(
        f"step {low:g} > {high:g} > {low:g}",
        seconds,
        lambda at: high if seconds / 6 <= at < seconds * 2 / 3 else low,
    )


def ramp(low: float = 8, high: float = 80, seconds: float = 3600) -> Load:
    """Up from 1/12 to 1/2 of the run, down from 2/3 to 5/6."""

    def rate(at: float) -> float:
        part = at / seconds
        up, down = (part - 1 / 12) * 12 / 5, (part - 2 / 3) * 6
        return low + (high - low) * (min(1.0, max(0.0, up)) - min(1.0, max(0.0, down)))

    return Load(f"ramp {low:g} > {high:g} > {low:g}", seconds, rate)


def diurnal(low: float = 8, high: float = 72, seconds: float = 3600) -> Load:
    """One day, as a cosine."""
    middle, half = (low + high) / 2, (high - low) / 2
    return Load(
        f"diurnal {low:g} to {high:g}", seconds, lambda at: middle - half * math.cos(2 * math.pi * at / seconds)
    )


def flash_crowd(low: float = 10, high: float = 60, seconds: float = 3600) -> Load:
    """A minute of many, at a quarter of the run."""
    begin = seconds / 4
    return Load(f"flash crowd {low:g}, {high:g}", seconds, lambda at: high if begin <= at < begin + 60 else low)


SHAPES: dict[str, Callable[[float, float, float], Load]] = {
    "step": step,
    "ramp": ramp,
    "diurnal": diurnal,
    "flash-crowd": flash_crowd,
}


def stepwise(name: str, points: Sequence[tuple[float, float]], seconds: float | None = None) -> Load:
    """(second, rate): each rate holds until the next point; the last as long as the one before it."""
    if not points:
        raise LoadError(f"{name}: there is no point")
    times, rates = [time for time, _ in points], [rate for _, rate in points]
    if any(later <= earlier for earlier, later in pairwise(times)):
        raise LoadError(f"{name}: the seconds must grow from line to line")
    if any(not math.isfinite(value) or value < 0 for point in points for value in point):
        raise LoadError(f"{name}: seconds and rates must be numbers from 0 on")
    last = times[-1] - times[-2] if len(times) > 1 else 60.0
    start = times[0]

    def rate(at: float) -> float:
        return rates[max(0, bisect_right(times, at + start) - 1)]

    return Load(name, seconds or times[-1] + last - start, rate)


def trace(name: str, lines: Iterable[str]) -> Load:
    """A CSV file with the columns `seconds` and `rps`."""
    reader = csv.DictReader(lines)
    if not {"seconds", "rps"} <= set(reader.fieldnames or ()):
        raise LoadError(f"{name}: the first line must name the columns seconds and rps")
    points = []
    for row in reader:
        try:
            points.append((float(row["seconds"]), float(row["rps"])))
        except (TypeError, ValueError) as error:
            raise LoadError(f"{name}, line {reader.line_num}: seconds and rps must be numbers") from error
    return stepwise(name, points)
