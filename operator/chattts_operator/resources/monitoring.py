"""PodMonitor and PrometheusRule of one service. Pure; the expressions are those of autoscaling/rules.py."""

from __future__ import annotations

from .. import api
from ..autoscaling.rules import Promise, rule_group, selector_of
from ..spec import TTSServiceSpec
from .child import child


def pod_monitor(spec: TTSServiceSpec) -> api.Body:
    endpoint = {
        "port": "metrics",
        "path": "/metrics",
        "interval": f"{spec.monitoring.interval_seconds}s",
        "relabelings": [
            {
                "action": "replace",
                "sourceLabels": ["__meta_kubernetes_pod_label_chattts_dev_service"],
                "targetLabel": "tts_service",
            }
        ],
    }
    content = {
        "spec": {
            "selector": {"matchLabels": api.selector_labels(spec.key.name)},
            "podMetricsEndpoints": [endpoint],
        }
    }
    return child(api.POD_MONITOR, spec, content, labels=spec.monitoring.labels)


def prometheus_rule(spec: TTSServiceSpec) -> api.Body:
    namespace, name = spec.key
    group = rule_group(f"chattts-{namespace}-{name}", Promise.of(spec.autoscaling), selector_of(namespace, name))
    return child(api.PROMETHEUS_RULE, spec, {"spec": {"groups": [group]}}, labels=spec.monitoring.labels)
