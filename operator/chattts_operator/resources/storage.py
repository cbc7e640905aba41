"""The claim that keeps downloaded weights, and the Job that fetches them into it. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from .. import api
from ..model_spec import READ_WRITE_ONCE
from ..quantities import parse_quantity
from ..spec import TTSServiceSpec
from .child import child
from .weights import CACHE_MOUNT, FETCH, fetch_container, pod_security, volume

FETCH_ATTEMPTS = 6
EXIT_CONFIG = 78  # of chattts-server: the same arguments will fail again


def claim(spec: TTSServiceSpec, live: api.Body | None) -> api.Body:
    """Grows and never shrinks; what cannot be changed stays as it is. Retained, it has no owner and outlives us."""
    cache, old = spec.model.cache, (live or {}).get("spec") or {}
    fixed = live is not None and (live.get("status") or {}).get("phase") != "Bound"  # until then nothing may change
    size = _requested(old) if fixed else _larger(cache.size, old)
    wanted: dict[str, Any] = {
        "accessModes": old.get("accessModes") or [cache.access_mode],
        "resources": {"requests": {"storage": size}},
    }
    if cache.storage_class:  # left out, the cluster's default class fills it in
        wanted["storageClassName"] = old.get("storageClassName", cache.storage_class)
    return child(api.CLAIM, spec, {"spec": wanted}, owned=not cache.retain)


def _larger(size: str, old: api.Body) -> str:
    live = _requested(old)
    return size if parse_quantity(size) >= parse_quantity(live) else live


def _requested(old: api.Body) -> str:
    return str(((old.get("resources") or {}).get("requests") or {}).get("storage", "0"))


def fetch_job(spec: TTSServiceSpec, image: str, claim_uid: str) -> api.Body:
    """Written once: a Job's template cannot be changed. Another `fetch_id` asks for another Job."""
    pod_labels = {
        "app.kubernetes.io/name": "chattts-fetch",
        "app.kubernetes.io/instance": spec.key.name,
        api.LABEL_FETCH: spec.key.name,
    }
    content = {
        "spec": {
            "backoffLimit": FETCH_ATTEMPTS,
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": FETCH, "operator": "In", "values": [EXIT_CONFIG]},
                    },
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": {"metadata": {"labels": pod_labels}, "spec": _fetch_pod(spec, image)},
        }
    }
    return child(api.JOB, spec, content, annotations={api.ANNOTATION_FETCH: fetch_id(spec, claim_uid)})


def fetch_id(spec: TTSServiceSpec, claim_uid: str) -> str:
    """Of what is fetched and where to: a claim that was made anew is empty. The image that fetches does not matter."""
    model = spec.model
    said = [model.repository, model.revision, model.endpoint, model.token, claim_uid]
    return f"{model.revision[:12]}-{hashlib.sha256(json.dumps(said).encode()).hexdigest()[:8]}"


def _fetch_pod(spec: TTSServiceSpec, image: str) -> dict[str, Any]:
    scheduling = spec.scheduling
    container = fetch_container(spec, image, f"{CACHE_MOUNT}/{spec.model.revision}", CACHE_MOUNT)
    container["resources"] = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
    pod = {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [volume(spec), {"name": "tmp", "emptyDir": {}}],
        "imagePullSecrets": [{"name": name} for name in spec.image.pull_secrets],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        # Where the servers will run, so that a volume which belongs to a zone is made in the right one.
        "nodeSelector": dict(scheduling.node_selector),
        "tolerations": [dict(toleration) for toleration in scheduling.tolerations],
        "affinity": dict(scheduling.affinity) or _beside_servers(spec),
        "schedulerName": scheduling.scheduler,
    }
    return {name: value for name, value in pod.items() if value not in ("", {}, [])}


def _beside_servers(spec: TTSServiceSpec) -> dict[str, Any]:
    """A ReadWriteOnce volume is attached to one node: the next revision is fetched where the servers are."""
    if spec.model.cache.access_mode != READ_WRITE_ONCE:
        return {}
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": api.selector_labels(spec.key.name)},
    }
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
