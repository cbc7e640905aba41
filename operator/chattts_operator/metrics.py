"""The operator's own metrics; every collector is made here. Knows nothing of what it counts."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from . import api
from .autoscaling.signals import Decision


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._changes: dict[api.Key, tuple[int, int]] = {}  # decided in the last tick, by then not carried out

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"chattts_operator_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"chattts_operator_{name}", text, labels, registry=self.registry)

        self.reconciles = counter("reconcile_total", "Reconciles by result.", "result")
        self.reconcile_seconds = Histogram(
            "chattts_operator_reconcile_seconds",
            "Duration of a reconcile.",
            registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )
        self.queue_depth = gauge("queue_depth", "TTSServices that wait for a worker.")
        self.queue_oldest = gauge("queue_oldest_seconds", "How long the first of them waits.")
        self.leader = gauge("leader", "1 while this operator leads.")
        self.desired = gauge("desired_replicas", "Replicas decided on.", "namespace", "tts_service")
        self.scale_decisions = counter("scale_total", "Decisions to change the number.", "direction", "reason")
        self.prometheus_failures = counter("prometheus_failures_total", "Scaling ticks without an answer.")
        self.tick_seconds = gauge("scaling_tick_seconds", "Duration of the last scaling tick.")
        self.requests = counter("api_requests_total", "Requests to the API server.", "verb", "code")

    def request(self, verb: str, status: int) -> None:
        self.requests.labels(verb, str(status) if status else "none").inc()

    def decided(self, decisions: Mapping[api.Key, Decision]) -> None:
        """After every tick; a service that is gone leaves no series behind."""
        self.desired.clear()
        changes: dict[api.Key, tuple[int, int]] = {}
        for key, decision in decisions.items():
            self.desired.labels(*key).set(decision.desired)
            if decision.desired == decision.committed:
                continue
            changes[key] = (decision.committed, decision.desired)
            if changes[key] != self._changes.get(key):  # else it is the same one, still on its way
                direction = "out" if decision.desired > decision.committed else "in"
                self.scale_decisions.labels(direction, decision.reason).inc()
        self._changes = changes

    def serve(self, port: int) -> None:
        if port:
            start_http_server(port, registry=self.registry)
