"""The Deployment of the speech server. Pure; knows nothing of what is live, nor of what is in the pod."""

from __future__ import annotations

from .. import api
from ..rollout import Strategy
from ..spec import TTSServiceSpec
from .child import child
from .pod import template

MIN_READY_SECONDS = 10


def deployment(
    spec: TTSServiceSpec,
    replicas: int,
    image: str,
    scrape_annotations: bool,
    strategy: Strategy = Strategy.SURGE,
    revision: str = "",
) -> api.Body:
    """`revision`: of the weights on our claim, where there is one."""
    content = {
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": api.selector_labels(spec.key.name)},
            "strategy": strategy.body,
            "minReadySeconds": MIN_READY_SECONDS,
            "progressDeadlineSeconds": spec.rollout.startup_deadline_seconds + 60,
            "revisionHistoryLimit": 3,
            "template": template(spec, image, revision, scrape_annotations),
        }
    }
    return child(api.DEPLOYMENT, spec, content, labels={api.LABEL_REPLICAS: str(replicas)})
