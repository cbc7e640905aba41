"""Counts and exact percentiles of a run. Knows nothing about HTTP, asyncio or the clock: times are arguments.

A request ends in exactly one of four ways, so `sent = ok + rejected_429 + failed + cut + inflight`:
ok, rejected_429 (an honest refusal), cut (the answer had begun and broke) and failed (everything else).
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

OK = "ok"
REJECTED = "rejected_429"
CUT = "cut"
NOT_SENT = "not_sent"  # the generator's own bound on requests in flight was reached
WINDOW_SECONDS = 10.0

Json = dict[str, object]


def percentile(ordered: Sequence[float], q: float) -> float | None:
    """The nearest-rank percentile of sorted values: a value that was really seen. None when there is none."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> Json:
    """Percentiles in seconds; an infinite one (no answer) is null, as JSON has no infinity."""
    ordered = sorted(values)
    quantiles = {"p50_s": 0.5, "p90_s": 0.9, "p95_s": 0.95, "p99_s": 0.99, "max_s": 1.0}
    return {"count": len(ordered)} | {name: _seconds(percentile(ordered, q)) for name, q in quantiles.items()}


def _seconds(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else round(value, 6)


@dataclass(slots=True)
class Retries:
    """What became of the Retry-After headers that came with refusals."""

    seen: int = 0  # refusals that carried the header
    missing: int = 0  # refusals without it
    obeyed: int = 0  # requests sent again after waiting that long
    admitted: int = 0  # of those, answered in the end
    longest_s: float = 0.0

    def refused(self, retry_after_s: float | None) -> None:
        if retry_after_s is None:
            self.missing += 1
        else:
            self.seen += 1
            self.longest_s = max(self.longest_s, retry_after_s)

    def as_json(self) -> Json:
        return {
            "seen": self.seen,
            "missing": self.missing,
            "obeyed": self.obeyed,
            "admitted": self.admitted,
            "longest_s": self.longest_s,
        }


@dataclass(slots=True)
class Tally:
    """Every scheduled request, counted once when it is sent and once when it ends."""

    scheduled: int = 0
    inflight: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)  # of ok answers, from the intended send time
    first_audio: list[float] = field(default_factory=list)  # from the intended send time to the first body byte
    lags: list[float] = field(default_factory=list)  # how late the generator itself was
    retries: Retries = field(default_factory=Retries)
    audio_seconds: float = 0.0
    body_bytes: int = 0
    recent: deque[tuple[float, float]] = field(default_factory=deque)  # (ended at, latency) of ok answers

    def start(self, lag: float) -> None:
        self.scheduled += 1
        self.inflight += 1
        self.lags.append(max(0.0, lag))

    def not_sent(self) -> None:
        self.scheduled += 1
        self.kinds[NOT_SENT] += 1

    def end(self, kind: str, now: float, latency: float, first_audio: float | None = None) -> None:
        self.inflight -= 1
        self.kinds[kind] += 1
        if kind == OK:
            self.latencies.append(latency)
            self.recent.append((now, latency))
            if first_audio is not None:
                self.first_audio.append(first_audio)

    @property
    def failed(self) -> int:
        return sum(self.errors().values()) - self.kinds[CUT]

    def errors(self) -> dict[str, int]:
        return {kind: n for kind, n in sorted(self.kinds.items()) if kind not in (OK, REJECTED) and n}

    def counts(self) -> Json:
        return {
            "sent": self.scheduled - self.kinds[NOT_SENT],
            "ok": self.kinds[OK],
            "rejected_429": self.kinds[REJECTED],
            "failed": self.failed,
            "cut": self.kinds[CUT],
            "inflight": self.inflight,
        }

    def line(self, now: float) -> Json:
        """Counts since the start, and latency and answers per second over the last 10 s."""
        while self.recent and self.recent[0][0] <= now - WINDOW_SECONDS:
            self.recent.popleft()
        ordered = sorted(latency for _, latency in self.recent)
        return {
            "t": round(now, 3),
            **self.counts(),
            "p50_s": _seconds(percentile(ordered, 0.5)),
            "p99_s": _seconds(percentile(ordered, 0.99)),
            "qps": round(len(ordered) / max(1.0, min(now, WINDOW_SECONDS)), 3),
        }

    def late_share(self, slo_seconds: float) -> float | None:
        """The part of what was asked that was not answered in time: late, refused, failed or cut."""
        ended = self.scheduled - self.inflight
        in_time = sum(latency <= slo_seconds for latency in self.latencies)
        return None if ended == 0 else 1 - in_time / ended

    def summary(self, wall_seconds: float, slo_seconds: float, stream: bool) -> Json:
        unanswered = [math.inf] * (self.scheduled - self.inflight - len(self.latencies))
        late = self.late_share(slo_seconds)
        return {
            "wall_s": round(wall_seconds, 3),
            "requests": self.scheduled,
            **self.counts(),
            "errors": self.errors(),
            "qps_ok": round(self.kinds[OK] / wall_seconds, 3) if wall_seconds > 0 else None,
            "latency_s": spread(self.latencies),
            "scheduled_latency_s": spread([*self.latencies, *unanswered]),
            "slo_s": slo_seconds,
            "late_share": None if late is None else round(late, 6),
            "first_audio_s": spread(self.first_audio) if stream else None,
            "client_lag_s": spread(self.lags),
            "retry_after": self.retries.as_json(),
            "audio_seconds": round(self.audio_seconds, 3),
            "bytes": self.body_bytes,
        }
