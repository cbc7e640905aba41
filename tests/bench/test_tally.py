"""The numbers of a run, from made-up ends of requests: no network, no clock."""

from __future__ import annotations

import json
from typing import Any

from bench.tally import CUT, OK, REJECTED, Tally, percentile


def ended(*ends: tuple[str, float]) -> Tally:
    tally = Tally()
    for kind, latency in ends:
        tally.start(lag=0.001)
        tally.end(kind, now=latency, latency=latency)
    return tally


def summary(tally: Tally) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(tally.summary(10.0, 1.2, stream=False), allow_nan=False))
    return found


def test_a_percentile_is_a_value_that_was_seen() -> None:
    hundred = [float(n) for n in range(1, 101)]
    assert percentile(hundred, 0.5) == 50
    assert percentile(hundred, 0.99) == 99
    assert percentile(hundred, 1.0) == 100
    assert percentile([7.0], 0.99) == 7
    assert percentile([], 0.99) is None


def test_every_request_ends_in_one_of_four_ways() -> None:
    tally = ended((OK, 0.2), (REJECTED, 0.0), (CUT, 0.3), ("status_503", 0.1), ("connect", 0.1))
    tally.start(lag=0.0)
    counts = tally.counts()
    assert counts == {"sent": 6, "ok": 1, "rejected_429": 1, "failed": 2, "cut": 1, "inflight": 1}


def test_a_request_without_an_answer_counts_in_the_percentiles_of_all() -> None:
    answered = summary(ended(*[(OK, 0.1)] * 100))
    refused = summary(ended(*[(OK, 0.1)] * 98, *[(REJECTED, 0.001)] * 2))
    assert answered["scheduled_latency_s"]["p99_s"] == 0.1
    assert refused["latency_s"]["p99_s"] == 0.1
    assert refused["scheduled_latency_s"]["p99_s"] is None  # no number: 2 % were never answered
    assert (answered["late_share"], refused["late_share"]) == (0.0, 0.02)


def test_late_share_is_what_the_promise_counts() -> None:
    late = summary(ended(*[(OK, 0.5)] * 6, *[(OK, 1.3)] * 2, (REJECTED, 0.0), (CUT, 0.1)))
    assert late["late_share"] == 0.4
    assert late["errors"] == {"cut": 1}


def test_the_window_forgets_after_ten_seconds() -> None:
    tally = ended((OK, 1.0), (OK, 9.0))
    assert tally.line(9.5)["p99_s"] == 9.0
    assert tally.line(12.0)["p50_s"] == 9.0  # the first one ended 11 s ago
    assert tally.line(30.0)["p99_s"] is None  # nothing known is not zero
    assert tally.line(30.0)["qps"] == 0
    assert tally.line(30.0)["ok"] == 2  # counts are since the start


def test_an_empty_run_has_no_numbers_rather_than_zeros() -> None:
    empty = summary(Tally())
    assert empty["requests"] == 0
    assert empty["late_share"] is None
    assert empty["latency_s"] == {"count": 0, "p50_s": None, "p90_s": None, "p95_s": None, "p99_s": None, "max_s": None}


def test_what_was_not_sent_is_a_failure_and_not_forgotten() -> None:
    tally = ended((OK, 0.1))
    tally.not_sent()
    assert summary(tally)["errors"] == {"not_sent": 1}
    assert summary(tally)["failed"] == 1
    assert summary(tally)["requests"] == 2
    assert summary(tally)["sent"] == 1
