"""A Grafana dashboard of one service, as a ConfigMap that Grafana's sidecar finds. Pure; sends no query.

Direct expressions and not recording rules: it shows the same without prometheus-operator.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from .. import api
from ..autoscaling.rules import Promise, bad_ratio, offered, p99, refused, selector_of
from ..spec import TTSServiceSpec
from .child import child

SIDECAR_LABEL = {"grafana_dashboard": "1"}
COLUMNS, WIDTH, HEIGHT = 2, 12, 8  # of Grafana's 24-column grid


def dashboard(spec: TTSServiceSpec) -> api.Body:
    text = json.dumps(_dashboard(spec), indent=1, sort_keys=True)
    labels = {**spec.monitoring.labels, **SIDECAR_LABEL}
    return child(api.CONFIG_MAP, spec, {"data": {f"chattts-{spec.key.name}.json": text}}, labels=labels)


def _dashboard(spec: TTSServiceSpec) -> dict[str, Any]:
    namespace, name = spec.key
    return {
        "uid": f"chattts-{spec.uid}"[:40],
        "title": f"ChatTTS {namespace}/{name}",
        "tags": ["chattts"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "panels": [_panel(index, *content) for index, content in enumerate(_panels(spec))],
    }


def _panels(spec: TTSServiceSpec) -> Iterable[tuple[str, str, str, dict[str, str]]]:
    """Title, what it answers, unit, expressions by legend."""
    own, promise = selector_of(*spec.key), Promise.of(spec.autoscaling)
    target = spec.autoscaling.p99_milliseconds / 1000
    yield (
        "Latency", "Is the promise kept?", "s",
        {"p99": p99(promise, own), "target": f"vector({target})"},
    )  # fmt: skip
    yield (
        "Late and refused", "Share of what was asked for; more than 1 % breaks the promise.", "percentunit",
        {"late or refused": bad_ratio(promise, own), "limit": "vector(0.01)"},
    )  # fmt: skip
    yield (
        "Requests", "What was asked for, and what was turned away.", "reqps",
        {"asked for": offered("1m", own), "refused": refused("1m", own)},
    )  # fmt: skip
    yield (
        "Replicas", "What the operator wants, and what reports.", "short",
        {
            "desired": f"max(chattts_operator_desired_replicas{{{own}}})",
            "reporting": f"count(chattts_inflight_requests{{{own}}})",
        },
    )  # fmt: skip
    yield (
        "Why did it scale", "Decisions of the operator in 5 minutes, all services.", "short",
        {"{{direction}} {{reason}}": "sum by (direction, reason) (increase(chattts_operator_scale_total[5m]))"},
    )  # fmt: skip
    yield (
        "Work in flight", "Requests admitted and not finished; audio still to be made.", "short",
        {
            "requests": f"sum(chattts_inflight_requests{{{own}}})",
            "seconds of audio queued": f"sum(chattts_queued_audio_seconds{{{own}}})",
        },
    )  # fmt: skip
    yield (
        "Batch", "Rows computed together, mean of 5 minutes.", "short",
        {"rows": f"sum(rate(chattts_batch_rows_sum{{{own}}}[5m])) / sum(rate(chattts_batch_rows_count{{{own}}}[5m]))"},
    )  # fmt: skip
    yield (
        "Cold start", "The last start of each pod's engine by phase.", "s",
        {"{{phase}}": f"max by (phase) (chattts_cold_start_seconds{{{own}}})"},
    )  # fmt: skip


def _panel(index: int, title: str, description: str, unit: str, expressions: dict[str, str]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "id": index + 1,
        "type": "timeseries",
        "title": title,
        "description": description,
        "datasource": source,
        "gridPos": {"x": index % COLUMNS * WIDTH, "y": index // COLUMNS * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": source, "expr": expression, "legendFormat": legend}
            for number, (legend, expression) in enumerate(expressions.items())
        ],
    }
