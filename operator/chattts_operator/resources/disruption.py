"""The PodDisruptionBudget of the speech server. Pure."""

from __future__ import annotations

from .. import api
from ..spec import TTSServiceSpec
from .child import child


def disruption_budget(spec: TTSServiceSpec) -> api.Body:
    content = {
        "spec": {
            "maxUnavailable": spec.disruption.max_unavailable,
            "selector": {"matchLabels": api.selector_labels(spec.key.name)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",  # a pod that never gets Ready must not hold up a drain
        }
    }
    return child(api.POD_DISRUPTION_BUDGET, spec, content)
