"""The demo's report: what it promises and how it says that it did not keep it."""

from dataclasses import replace

import pytest

from dev.demo.summary import Moments, p99_at, problems, summarize
from dev.demo.view import describe
from dev.demo.watch import Sample

KEPT = Moments(
    load_started=1000.0,
    breach_started=1030.0,
    scaled_out=1170.0,
    second_pod_ready=1195.0,
    load_stopped=1320.0,
    scaled_in=1500.0,
)
FACTS = {"kubernetes_version": "v1.34.4", "cold_build_s": 1.0, "warm_start_s": 2.0}
LOADS = [
    {"requests": 900, "failed": 0, "rejected_429": 12, "cut": 0},
    {"requests": 60, "failed": 0, "rejected_429": 0, "cut": 0},
]


def sample(at: float, p99: float | None) -> Sample:
    return Sample(at, p99, offered=28.0, refused=1.0, replicas=2, ready=1, reason="SLOBreach", message="")


SAMPLES = [
    sample(1100.0, 3.1),
    sample(1169.0, 2.9),
    sample(1170.5, 2.8),
    sample(1319.0, 0.8),
    sample(1321.0, None),
]


def report(
    moments: Moments = KEPT, loads: list[dict[str, int]] = LOADS, samples: list[Sample] = SAMPLES
) -> dict[str, object]:
    return summarize(moments, samples, loads, audio=[], facts=FACTS)


def test_a_run_that_kept_its_word_has_no_problems() -> None:
    summary = report()
    assert problems(summary) == []
    assert summary["requests"] == 960
    assert (summary["breach_started_s"], summary["scaled_out_s"], summary["scaled_in_s"]) == (
        30.0,
        170.0,
        500.0,
    )
    assert (summary["p99_before_s"], summary["p99_after_s"]) == (2.9, 0.8)


@pytest.mark.parametrize(
    ("moments", "words"),
    [
        (replace(KEPT, breach_started=1051.0), "before its 2 minutes"),
        (replace(KEPT, breach_started=1000.0 - 1.0), "too late"),
        (replace(KEPT, scaled_in=None), "scaled_in_s is unknown"),
        (replace(KEPT, breach_started=None), "breach_started_s is unknown"),
    ],
)
def test_a_moment_that_is_wrong_or_missing_is_named(moments: Moments, words: str) -> None:
    assert any(words in problem for problem in problems(report(moments)))


@pytest.mark.parametrize("key", ["failed", "cut"])
def test_one_failed_or_cut_request_is_a_problem(key: str) -> None:
    assert problems(report(loads=[{**LOADS[0], key: 1}, LOADS[1]]))


def test_p99_over_the_slo_at_the_end_is_a_problem() -> None:
    assert any("over 1.2 s" in problem for problem in problems(report(samples=[*SAMPLES[:3], sample(1319.0, 1.3)])))


def test_p99_at_skips_unknown_values_and_never_looks_ahead() -> None:
    assert p99_at(SAMPLES, 1400.0) == 0.8
    assert p99_at(SAMPLES, 1000.0) is None


def test_unknown_is_shown_as_a_dash_and_never_as_zero() -> None:
    line = describe(Sample(0.0, None, None, None, None, None, "", ""))
    assert "p99 -" in line
    assert "0" not in line
