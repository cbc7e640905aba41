"""Send times: even, Poisson, repeatable."""

from __future__ import annotations

import statistics
from itertools import pairwise

import pytest

from bench.arrivals import intended_times


def test_constant_is_even_and_ends_before_the_end() -> None:
    assert list(intended_times(4, "constant", 1, seed=1)) == [0, 0.25, 0.5, 0.75]


def test_poisson_has_the_rate_and_the_spread_of_poisson() -> None:
    times = list(intended_times(50, "poisson", 400, seed=3))
    gaps = [b - a for a, b in pairwise(times)]
    assert len(times) == pytest.approx(20_000, rel=0.03)
    assert statistics.fmean(gaps) == pytest.approx(0.02, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(0.02, rel=0.05)  # exponential: deviation = mean
    assert all(0 <= at < 400 for at in times)


def test_the_seed_alone_decides() -> None:
    first, again, other = (list(intended_times(20, "poisson", 10, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_an_unknown_arrival_is_refused() -> None:
    with pytest.raises(ValueError, match="'bursty'"):
        next(intended_times(1, "bursty", 1, seed=1))
