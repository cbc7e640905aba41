"""Every collector, on a registry of its own. observe() is the only writer. Knows no request, only events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from threading import Thread
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.exposition import MetricsHandler

from chattts_server import __version__
from chattts_server.engine.nouns import Fail, Phase, StepReport

Delivery = Literal["full", "stream"]
DURATION_BOUNDS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 8.0, 13.0, 30.0)
STEP_BOUNDS = (0.001, 0.002, 0.004, 0.006, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
ROW_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each one, which nobody asks for


@dataclass(frozen=True, slots=True)
class Accepted:
    dropped_characters: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Turned away for want of capacity: load, so the autoscaler counts it as a late request."""

    reason: Literal["queue_full", "deadline", "not_ready", "draining"]


@dataclass(frozen=True, slots=True)
class OverBudget:
    """Turned away because of what its API key has asked for already: not load, more servers would not help."""


@dataclass(frozen=True, slots=True)
class Late:
    """A deadline has passed after admission; comes beside Broken."""

    phase: Literal["queue", "prefill", "decode", "vocode", "engine"]


@dataclass(frozen=True, slots=True)
class Invalid:
    """Can never succeed as it is; not load."""


@dataclass(frozen=True, slots=True)
class Served:
    """All audio of a request was ready to send. Times count from the request's arrival."""

    delivery: Delivery
    duration_seconds: float
    first_audio_seconds: float
    queued_seconds: float
    audio_seconds: float
    underran: bool = False  # who played it while it came had to wait


@dataclass(frozen=True, slots=True)
class Abandoned:
    """Accepted, and its client left before there was audio: late, where it had waited longer than is promised.

    Otherwise just those who wait too long would be missing from the latency.
    """

    delivery: Delivery
    elapsed_seconds: float
    predicted_audio_seconds: float


@dataclass(frozen=True, slots=True)
class Broken:
    """Accepted, and not served: deadline or engine. It is late, however soon it failed."""

    delivery: Delivery
    elapsed_seconds: float
    predicted_audio_seconds: float
    first_audio_seconds: float | None = None  # None: it broke before there was any


@dataclass(frozen=True, slots=True)
class Load:
    inflight_requests: int
    queued_audio_seconds: float


@dataclass(frozen=True, slots=True)
class EngineReady:
    device: str
    dtype: str
    digests: str


Event = (
    Accepted
    | Refused
    | OverBudget
    | Late
    | Invalid
    | Served
    | Abandoned
    | Broken
    | Load
    | EngineReady
    | StepReport
    | Phase
    | Fail
)


class Metrics:
    def __init__(self, slo_seconds: float, slo_max_audio_seconds: float) -> None:
        self.registry = registry = CollectorRegistry()
        self._slo_seconds = slo_seconds
        self._slo_max_audio_seconds = slo_max_audio_seconds
        bounds = sorted({*DURATION_BOUNDS, slo_seconds})

        def histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        arrival = "Arrival to the last audio byte ready to send"
        self._infer = counter("chattts_infer", "Requests by what admission said", "outcome")
        self._duration = histogram("chattts_infer_duration_seconds", arrival, bounds, "delivery")
        self._long = histogram(
            "chattts_infer_long_duration_seconds", f"{arrival}, audio over the SLO's length", bounds, "delivery"
        )
        self._first_audio = histogram("chattts_first_audio_seconds", "Arrival to the first audio", bounds)
        self._queue_wait = histogram("chattts_queue_wait_seconds", "Wait for a place in a batch", bounds)
        self._step = histogram("chattts_engine_step_seconds", "Mean decode step of a batch", STEP_BOUNDS)
        self._rows = histogram("chattts_batch_rows", "Rows of a batch", ROW_BOUNDS)
        self._inflight = gauge("chattts_inflight_requests", "Admitted and not finished")
        self._queued = gauge(
            "chattts_queued_audio_seconds", "Predicted audio of the requests in flight that is still to be made"
        )
        self._audio = counter("chattts_audio_seconds", "Audio decoded, steps at 46.875 a second")
        self._rejected = counter(
            "chattts_requests_rejected", "Requests refused, though they may be sent again", "reason"
        )
        self._failed = counter("chattts_rows_failed", "Rows that failed alone, in an engine that goes on", "reason")
        self._late = counter("chattts_deadlines_passed", "Requests whose deadline passed, by where they were", "phase")
        self._underruns = counter("chattts_stream_underruns", "Streams that fell behind real time")
        self._dropped = counter("chattts_text_dropped_characters", "Characters that cannot be read and were left out")
        self._cold_start = gauge("chattts_cold_start_seconds", "Last start of the engine", "phase")
        self._memory = gauge("chattts_device_memory_bytes", "Memory of the engine", "kind")
        self._build = gauge("chattts_build_info", "Always 1", "version", "device", "dtype", "weights")
        for outcome in ("accepted", "refused", "invalid"):  # a rate() needs the 0 before the first request
            self._infer.labels(outcome)
        for reason in ("queue_full", "deadline", "not_ready", "draining", "budget"):
            self._rejected.labels(reason)
        for reason in ("invalid", "engine", "nan", "empty"):
            self._failed.labels(reason)
        for phase in ("queue", "prefill", "decode", "vocode", "engine"):
            self._late.labels(phase)
        for delivery in ("full", "stream"):
            self._duration.labels(delivery)
            self._long.labels(delivery)

    def observe(self, event: Event) -> None:
        match event:
            case Accepted():
                self._infer.labels("accepted").inc()
                self._dropped.inc(event.dropped_characters)
            case Refused():
                self._infer.labels("refused").inc()
                self._rejected.labels(event.reason).inc()
            case OverBudget():
                self._infer.labels("invalid").inc()
                self._rejected.labels("budget").inc()
            case Late():
                self._late.labels(event.phase).inc()
            case Invalid():
                self._infer.labels("invalid").inc()
            case Served():
                self._durations(event.audio_seconds).labels(event.delivery).observe(event.duration_seconds)
                self._first_audio.observe(event.first_audio_seconds)
                self._queue_wait.observe(event.queued_seconds)
                self._underruns.inc(event.underran)
            case Abandoned():
                if event.elapsed_seconds > self._slo_seconds:
                    self._durations(event.predicted_audio_seconds).labels(event.delivery).observe(event.elapsed_seconds)
                    self._first_audio.observe(event.elapsed_seconds)
            case Broken():
                late = max(event.elapsed_seconds, 2 * self._slo_seconds)
                self._durations(event.predicted_audio_seconds).labels(event.delivery).observe(late)
                self._first_audio.observe(late if event.first_audio_seconds is None else event.first_audio_seconds)
            case Load():
                self._inflight.set(event.inflight_requests)
                self._queued.set(event.queued_audio_seconds)
            case EngineReady():
                self._build.clear()
                self._build.labels(__version__, event.device, event.dtype, event.digests).set(1)
            case Fail():
                self._failed.labels(event.kind).inc()
            case Phase():
                self._cold_start.labels(event.name).set(event.seconds)
            case StepReport():
                self._observe_report(event)

    def _observe_report(self, report: StepReport) -> None:
        if report.steps:
            self._step.observe(report.step_seconds / report.steps)
        self._rows.observe(report.rows)
        self._audio.inc(report.audio_seconds)
        for kind, size in report.memory_bytes.items():
            self._memory.labels(kind).set(size)

    def _durations(self, audio_seconds: float) -> Histogram:
        return self._long if audio_seconds > self._slo_max_audio_seconds else self._duration


class MetricsServer:
    """`/metrics` on a port of its own, in a thread: a scrape is answered while the event loop is busy."""

    def __init__(self, metrics: Metrics, host: str, port: int) -> None:
        self._server = ThreadingHTTPServer((host, port), MetricsHandler.factory(metrics.registry))
        self._server.daemon_threads = True
        self.port: int = self._server.server_port
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
