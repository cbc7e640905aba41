"""Ratios, intervals and the order of the engine's benchmark: pure."""

import pytest

from bench.engine.compare import interleaved, ratio
from bench.tally import percentile


def test_a_ratio_is_of_neighbours_and_its_interval_holds_the_truth():
    # The machine drifts by half; what was measured side by side does not.
    theirs = [10.0, 8.0, 7.0, 6.0, 5.0]
    ours = [20.2, 15.8, 14.1, 11.9, 10.1]
    found = ratio(ours, theirs)
    assert found.value == pytest.approx(2.0, rel=0.01)
    assert 1.9 < found.low < 2.0 < found.high < 2.1


def test_a_noisy_ratio_has_a_wide_interval():
    assert ratio([1.0, 4.0, 1.0], [1.0, 1.0, 1.0]).low < 1.0


def test_percentiles_are_exact_values():
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (50.0, 99.0, 100.0)
    assert percentile(sorted([3.0, 1.0, 2.0]), 0.99) == 3.0


def test_a_drift_meets_all_arms_alike():
    assert (interleaved(3, 0), interleaved(3, 1), interleaved(3, 2)) == ([0, 1, 2], [2, 1, 0], [0, 1, 2])
