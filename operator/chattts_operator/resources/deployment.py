"""The Deployment of the speech server. Pure; knows nothing of what is live.

Nothing of the operator's version stands in the pod template: an operator upgrade must not restart a GPU pod.
"""

from __future__ import annotations

from typing import Any

from .. import api
from ..spec import TTSServiceSpec
from .child import child

PRE_STOP_SECONDS = 5  # the Service needs this long to forget a pod that leaves
GRACE_MARGIN_SECONDS = 5
MIN_READY_SECONDS = 10
PROBE_PERIOD_SECONDS = 5
STARTUP_PERIOD_SECONDS = 2  # a part of every cold start
SCRAPE_ANNOTATION = "prometheus.io/scrape"


def deployment(spec: TTSServiceSpec, replicas: int, image: str, scrape_annotations: bool) -> api.Body:
    content = {
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": api.selector_labels(spec.key.name)},
            "strategy": _strategy(spec.rollout.capacity_policy, replicas),
            "minReadySeconds": MIN_READY_SECONDS,
            "progressDeadlineSeconds": spec.rollout.startup_deadline_seconds + 60,
            "revisionHistoryLimit": 3,
            "template": {
                "metadata": _pod_metadata(spec, scrape_annotations),
                "spec": _pod(spec, image),
            },
        }
    }
    return child(api.DEPLOYMENT, spec, content, annotations={api.ANNOTATION_REPLICAS: str(replicas)})


def _strategy(policy: str, replicas: int) -> dict[str, Any]:
    """With one replica, replacing is downtime; with more, a spare GPU is the rarer thing."""
    if policy == "Recreate":
        return {"type": "Recreate"}
    surge = policy == "Surge" or (policy == "Auto" and replicas <= 1)
    return {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0} if surge else {"maxSurge": 0, "maxUnavailable": 1},
    }


def _pod_metadata(spec: TTSServiceSpec, scrape_annotations: bool) -> dict[str, Any]:
    metadata: dict[str, Any] = {"labels": api.labels(spec.key.name)}
    if scrape_annotations:
        metadata["annotations"] = {
            SCRAPE_ANNOTATION: "true",
            "prometheus.io/port": str(api.METRICS_PORT),
            "prometheus.io/path": "/metrics",
        }
    return metadata


def _pod(spec: TTSServiceSpec, image: str) -> dict[str, Any]:
    scheduling = spec.scheduling
    pod: dict[str, Any] = {
        "containers": [_container(spec, image)],
        "initContainers": _init_containers(spec, image),
        "volumes": _volumes(spec),
        "imagePullSecrets": [{"name": name} for name in spec.image.pull_secrets],
        "terminationGracePeriodSeconds": PRE_STOP_SECONDS + spec.rollout.drain_seconds + GRACE_MARGIN_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": api.SERVER_USER,
            "runAsGroup": api.SERVER_USER,
            "fsGroup": api.SERVER_USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": dict(scheduling.node_selector),
        "tolerations": [dict(toleration) for toleration in scheduling.tolerations],
        "affinity": dict(scheduling.affinity),
        "topologySpreadConstraints": [dict(item) for item in scheduling.topology_spread] or [_spread(spec)],
        "priorityClassName": scheduling.priority_class,
        "runtimeClassName": scheduling.runtime_class,
        "schedulerName": scheduling.scheduler,
    }
    return {name: value for name, value in pod.items() if value not in ("", {}, [])}


def _spread(spec: TTSServiceSpec) -> dict[str, Any]:
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": api.selector_labels(spec.key.name)},
        "matchLabelKeys": ["pod-template-hash"],
    }


def _container(spec: TTSServiceSpec, image: str) -> dict[str, Any]:
    deadline = spec.rollout.startup_deadline_seconds
    return {
        "name": "server",
        "image": image,
        "imagePullPolicy": spec.image.pull_policy,
        "env": [{"name": name, "value": value} for name, value in _environment(spec)],
        "ports": [
            {"name": "http", "containerPort": api.HTTP_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": api.METRICS_PORT, "protocol": "TCP"},
        ],
        "resources": _resources(spec),
        "startupProbe": _probe("/startupz", STARTUP_PERIOD_SECONDS, -(-deadline // STARTUP_PERIOD_SECONDS)),
        "readinessProbe": _probe("/readyz", PROBE_PERIOD_SECONDS, 2),
        "livenessProbe": _probe("/livez", 10, 3),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
        "securityContext": _locked_down(),
        "volumeMounts": [
            _model_mount(spec, read_only=True),
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
        ],
    }


def _environment(spec: TTSServiceSpec) -> list[tuple[str, str]]:
    server = spec.server
    values: list[tuple[str, object | None]] = [
        ("CHATTTS_MODEL", "/model"),
        ("CHATTTS_DEVICE", server.device.lower()),
        ("CHATTTS_DTYPE", server.dtype),
        ("CHATTTS_MAX_BATCH_SIZE", server.max_batch_size),
        ("CHATTTS_MAX_QUEUE_WAIT_MILLISECONDS", server.max_queue_wait_milliseconds),
        ("CHATTTS_REQUEST_TIMEOUT_SECONDS", server.request_timeout_seconds),
        ("CHATTTS_SLO_MILLISECONDS", spec.autoscaling.p99_milliseconds),
        ("CHATTTS_SLO_MAX_AUDIO_SECONDS", spec.autoscaling.slo_max_audio_seconds),
        ("CHATTTS_DRAIN_SECONDS", spec.rollout.drain_seconds),
        ("HOME", "/tmp"),  # the root is read-only and libraries keep caches in their home
    ]
    known = [(name, str(value)) for name, value in values if value is not None]
    users = dict(server.extra_env)
    return [(name, value) for name, value in known if name not in users] + list(server.extra_env)


def _resources(spec: TTSServiceSpec) -> dict[str, Any]:
    limits = dict(spec.limits)
    if spec.accelerator.resource_name is not None:
        limits[spec.accelerator.resource_name] = spec.accelerator.count
    resources = {"requests": _as_text(spec.requests), "limits": _as_text(limits)}
    return {name: value for name, value in resources.items() if value}


def _as_text(quantities: Any) -> dict[str, str]:
    return {name: str(value) for name, value in quantities.items()}


def _probe(path: str, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }


def _locked_down() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _model_mount(spec: TTSServiceSpec, read_only: bool) -> dict[str, Any]:
    mount: dict[str, Any] = {"name": "model", "mountPath": "/model", "readOnly": read_only}
    if spec.model.path and spec.model.source != "HuggingFace":
        mount["subPath"] = spec.model.path
    return mount


def _volumes(spec: TTSServiceSpec) -> list[dict[str, Any]]:
    model = spec.model
    sources: dict[str, dict[str, Any]] = {
        "HuggingFace": {"emptyDir": {"sizeLimit": model.cache_size}},
        "PersistentVolumeClaim": {"persistentVolumeClaim": {"claimName": model.claim_name, "readOnly": True}},
        "HostPath": {"hostPath": {"path": model.host_path, "type": "Directory"}},
        "ImageVolume": {"image": {"reference": model.image, "pullPolicy": spec.image.pull_policy}},
    }
    return [
        {"name": "model", **sources[model.source]},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": spec.accelerator.shared_memory}},
    ]


def _init_containers(spec: TTSServiceSpec, image: str) -> list[dict[str, Any]]:
    if spec.model.source != "HuggingFace":
        return []
    return [
        {
            "name": "fetch",
            "image": image,
            "imagePullPolicy": spec.image.pull_policy,
            "args": [
                "fetch",
                "--repository",
                spec.model.repository,
                "--revision",
                spec.model.revision,
                "--to",
                "/model",
            ],
            "env": [{"name": name, "value": value} for name, value in (("HOME", "/tmp"), *spec.server.extra_env)],
            "securityContext": _locked_down(),
            "volumeMounts": [_model_mount(spec, read_only=False), {"name": "tmp", "mountPath": "/tmp"}],
        }
    ]
