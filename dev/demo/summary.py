"""From what the demo saw to what it reports: pure, so that the report can be tested without a cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dev.demo.watch import Sample

SLO_SECONDS = 1.2


@dataclass(frozen=True, slots=True)
class Moments:
    """Unix times of what happened; None = it did not happen."""

    load_started: float
    breach_started: float | None
    scaled_out: float | None
    second_pod_ready: float | None
    load_stopped: float | None
    scaled_in: float | None


def p99_at(samples: Sequence[Sample], at: float | None) -> float | None:
    """The p99 over one minute, in seconds, of the last sample at or before `at` that knows it."""
    known = [s.p99 for s in samples if at is not None and s.at <= at and s.p99 is not None]
    return known[-1] if known else None


def summarize(
    moments: Moments,
    samples: Sequence[Sample],
    loads: Sequence[Mapping[str, Any]],
    audio: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """The fields of summary.json. Times `*_s` count from the load's start, but cold_build_s, warm_start_s."""

    def after_start(at: float | None) -> float | None:
        return None if at is None else round(at - moments.load_started, 1)

    def total(key: str) -> int:
        return sum(int(load[key]) for load in loads)

    return {
        "audio": list(audio),
        "requests": total("requests"),
        "failed": total("failed"),
        "rejected_429": total("rejected_429"),
        "breach_started_s": after_start(moments.breach_started),
        "scaled_out_s": after_start(moments.scaled_out),
        "second_pod_ready_s": after_start(moments.second_pod_ready),
        "p99_before_s": p99_at(samples, moments.scaled_out),
        "p99_after_s": p99_at(samples, moments.load_stopped),
        "scaled_in_s": after_start(moments.scaled_in),
        "cut_streams": total("cut"),
        **facts,
    }


def problems(summary: Mapping[str, Any]) -> list[str]:
    """What the demo promised and did not show; empty = it kept its word."""
    found = [f"{key} is unknown: it was never seen" for key, value in summary.items() if value is None]
    if found:
        return found
    waited = summary["scaled_out_s"] - summary["breach_started_s"]
    checks = {
        f"{summary['failed']} requests failed": summary["failed"] == 0,
        f"{summary['cut_streams']} responses were cut": summary["cut_streams"] == 0,
        f"p99 before was {summary['p99_before_s']:.2f} s: the load did not breach 1.2 s": summary["p99_before_s"]
        > SLO_SECONDS,
        f"p99 after was {summary['p99_after_s']:.2f} s: over 1.2 s": summary["p99_after_s"] <= SLO_SECONDS,
        f"scaled out {waited:.1f} s after the first sample over 1.2 s: before its 2 minutes": waited >= 120,
        f"scaled out {waited:.1f} s after the first sample over 1.2 s: too late": waited <= 120 + 5 + 15 + 30,
    }
    return [problem for problem, kept in checks.items() if not kept]
