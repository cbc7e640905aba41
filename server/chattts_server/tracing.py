"""OpenTelemetry traces of requests, off by default. Knows no request, only spans with their times.

Times are taken where things happen, whether anybody traces or not; the spans are made when a request is over. This is
the only module that imports opentelemetry, and only when OTEL_EXPORTER_OTLP_ENDPOINT (or its TRACES form) is set.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

Attribute = str | int | float
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@dataclass(frozen=True, slots=True)
class Span:
    name: str
    start: float  # monotonic
    end: float  # monotonic
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(slots=True)
class Spans:
    """What a request did. Made by api/middleware.py for each one."""

    done: list[Span] = field(default_factory=list)

    def add(self, name: str, start: float, seconds: float, **attributes: Attribute) -> None:
        self.done.append(Span(name, start, start + seconds, attributes))

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """What happens bit by bit is one span, from its first begin to its last end; `busy_seconds` are the bits."""
        start = time.monotonic()
        try:
            yield
        finally:
            end = time.monotonic()
            found = next((span for span in self.done if span.name == name), None)
            busy = end - start
            if found is not None:
                self.done.remove(found)
                start, busy = found.start, busy + float(found.attributes["busy_seconds"])
            self.done.append(Span(name, start, end, {"busy_seconds": busy}))


class Traces(Protocol):
    def emit(self, request: Span, parts: Spans, headers: Mapping[str, str]) -> str:
        """Headers may hold W3C's traceparent: the request is then a part of that trace. Returns the trace id."""
        ...

    def close(self) -> None:
        """Sends what is not sent yet, for a few seconds at most."""
        ...


def open_traces(environment: Mapping[str, str]) -> Traces | None:
    """None: off. All else (headers, sampling, service name) is set by OpenTelemetry's own variables."""
    wanted = any(environment.get(name) for name in ENDPOINTS)
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if not wanted or disabled or environment.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return OpenTelemetry(BatchSpanProcessor(OTLPSpanExporter()), environment.get("OTEL_SERVICE_NAME", "chattts-server"))


class OpenTelemetry:
    def __init__(self, processor: SpanProcessor, service: str) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        self._provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("chattts_server")

    def emit(self, request: Span, parts: Spans, headers: Mapping[str, str]) -> str:
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        def at(moment: float) -> int:
            return since_epoch + int(moment * 1e9)

        since_epoch = time.time_ns() - time.monotonic_ns()
        parent = TraceContextTextMapPropagator().extract({name.lower(): value for name, value in headers.items()})
        root = self._tracer.start_span(
            request.name, parent, SpanKind.SERVER, dict(request.attributes), start_time=at(request.start)
        )
        inside = set_span_in_context(root)
        for part in parts.done:
            child = self._tracer.start_span(
                part.name, inside, attributes=dict(part.attributes), start_time=at(part.start)
            )
            child.end(at(part.end))
        root.end(at(request.end))
        return f"{root.get_span_context().trace_id:032x}"

    def close(self) -> None:
        self._provider.shutdown()
