"""The pod template of the speech server. Pure; knows nothing of the Deployment around it.

Nothing of the operator's version stands in it: an operator upgrade must not restart a GPU pod.
"""

from __future__ import annotations

from typing import Any

from .. import api
from ..overlay import merged
from ..spec import TTSServiceSpec
from .weights import MOUNT, init_containers, locked_down, pod_security, server_mount, volume

PRE_STOP_SECONDS = 5  # the Service needs this long to forget a pod that leaves
GRACE_MARGIN_SECONDS = 5
PROBE_PERIOD_SECONDS = 5
STARTUP_PERIOD_SECONDS = 2  # a part of every cold start
SCRAPE_ANNOTATIONS = {
    "prometheus.io/scrape": "true",
    "prometheus.io/port": str(api.METRICS_PORT),
    "prometheus.io/path": "/metrics",
}
VOICES_MOUNT = "/voices"
KEYS_MOUNT = "/etc/chattts/keys"
GPU_CLAIM = "gpu"


def template(spec: TTSServiceSpec, image: str, revision: str, scrape_annotations: bool) -> dict[str, Any]:
    """`revision` is that of the weights on our claim; it may lag behind the spec while the next one is fetched."""
    own = {"metadata": _metadata(spec, scrape_annotations), "spec": _pod(spec, image, revision)}
    return merged(own, spec.overlay)


def _metadata(spec: TTSServiceSpec, scrape_annotations: bool) -> dict[str, Any]:
    annotations: dict[str, str] = dict(SCRAPE_ANNOTATIONS) if scrape_annotations else {}
    if spec.disruption.protect_from_node_autoscaler:
        annotations |= {
            "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
            "karpenter.sh/do-not-disrupt": "true",
        }
    metadata: dict[str, Any] = {"labels": api.labels(spec.key.name)}
    return {**metadata, "annotations": annotations} if annotations else metadata


def _pod(spec: TTSServiceSpec, image: str, revision: str) -> dict[str, Any]:
    scheduling, accelerator = spec.scheduling, spec.accelerator
    pod: dict[str, Any] = {
        "containers": [_container(spec, image, revision)],
        "initContainers": init_containers(spec, image),
        "volumes": _volumes(spec),
        "imagePullSecrets": [{"name": name} for name in spec.image.pull_secrets],
        "terminationGracePeriodSeconds": PRE_STOP_SECONDS + spec.rollout.drain_seconds + GRACE_MARGIN_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "nodeSelector": dict(scheduling.node_selector),
        "tolerations": [dict(toleration) for toleration in scheduling.tolerations],
        "affinity": dict(scheduling.affinity),
        "topologySpreadConstraints": [_spread(spec, item) for item in scheduling.topology_spread or ({},)],
        "priorityClassName": scheduling.priority_class,
        "runtimeClassName": scheduling.runtime_class,
        "schedulerName": scheduling.scheduler,
    }
    if accelerator.claim_template:
        pod["resourceClaims"] = [{"name": GPU_CLAIM, "resourceClaimTemplateName": accelerator.claim_template}]
    return {name: value for name, value in pod.items() if value not in ("", {}, [])}


def _spread(spec: TTSServiceSpec, constraint: Any) -> dict[str, Any]:
    """What the user leaves out is ours: the pods of one rollout are spread over nodes where that is possible."""
    ours: dict[str, Any] = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": api.selector_labels(spec.key.name)},
    }
    if "labelSelector" not in constraint:  # a selector of the user's own may count other pods as well
        ours["matchLabelKeys"] = ["pod-template-hash"]
    return {**ours, **constraint}


def _container(spec: TTSServiceSpec, image: str, revision: str) -> dict[str, Any]:
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
        "terminationMessagePolicy": "FallbackToLogsOnError",  # so that status can say why it ended
        "securityContext": locked_down(),
        "volumeMounts": [
            server_mount(spec, revision),
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
            *_optional_mounts(spec),
        ],
    }


def _environment(spec: TTSServiceSpec) -> list[tuple[str, str]]:
    server = spec.server
    values: list[tuple[str, object | None]] = [
        ("CHATTTS_MODEL", MOUNT),
        ("CHATTTS_DEVICE", server.device.lower()),
        ("CHATTTS_DTYPE", server.dtype),
        ("CHATTTS_MAX_BATCH_SIZE", server.max_batch_size),
        ("CHATTTS_MAX_QUEUE_WAIT_MILLISECONDS", server.max_queue_wait_milliseconds),
        ("CHATTTS_REQUEST_TIMEOUT_SECONDS", server.request_timeout_seconds),
        ("CHATTTS_MAX_WHOLE_AUDIO_SECONDS", server.max_whole_audio_seconds),
        ("CHATTTS_KEY_AUDIO_SECONDS_PER_MINUTE", server.key_audio_seconds_per_minute),
        ("CHATTTS_SLO_MILLISECONDS", spec.autoscaling.p99_milliseconds),
        ("CHATTTS_SLO_MAX_AUDIO_SECONDS", spec.autoscaling.slo_max_audio_seconds),
        ("CHATTTS_DRAIN_SECONDS", spec.rollout.drain_seconds),
        ("CHATTTS_API_KEYS", KEYS_MOUNT if server.api_keys_secret else None),
        ("CHATTTS_VOICES", VOICES_MOUNT if spec.voices.config_map or spec.voices.claim_name else None),
        # Read-only, and the name is what the server tells who wants to add a voice.
        ("CHATTTS_VOICES_CONFIG_MAP", spec.voices.config_map or None),
        ("HOME", "/tmp"),  # the root is read-only and libraries keep caches in their home
    ]
    known = [(name, str(value)) for name, value in values if value is not None]
    users = dict(server.extra_env)
    return [(name, value) for name, value in known if name not in users] + list(server.extra_env)


def _resources(spec: TTSServiceSpec) -> dict[str, Any]:
    limits = dict(spec.limits)
    if spec.accelerator.resource_name is not None:
        limits[spec.accelerator.resource_name] = spec.accelerator.count
    resources: dict[str, Any] = {"requests": _as_text(spec.requests), "limits": _as_text(limits)}
    if spec.accelerator.claim_template:
        resources["claims"] = [{"name": GPU_CLAIM}]
    return {name: value for name, value in resources.items() if value}


def _as_text(quantities: Any) -> dict[str, str]:
    return {name: str(value) for name, value in quantities.items()}


def _volumes(spec: TTSServiceSpec) -> list[dict[str, Any]]:
    return [
        volume(spec),
        {"name": "tmp", "emptyDir": {}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": spec.accelerator.shared_memory}},
        *_optional_volumes(spec),
    ]


def _optional_volumes(spec: TTSServiceSpec) -> list[dict[str, Any]]:
    """Mounted whole and not by subPath: so a change of the ConfigMap or Secret reaches the pods without a restart."""
    found: list[dict[str, Any]] = []
    if spec.voices.config_map:
        found.append({"name": "voices", "configMap": {"name": spec.voices.config_map}})
    elif spec.voices.claim_name:
        found.append({"name": "voices", "persistentVolumeClaim": {"claimName": spec.voices.claim_name}})
    if spec.server.api_keys_secret:
        found.append({"name": "api-keys", "secret": {"secretName": spec.server.api_keys_secret}})
    return found


def _optional_mounts(spec: TTSServiceSpec) -> list[dict[str, Any]]:
    places = {"voices": VOICES_MOUNT, "api-keys": KEYS_MOUNT}
    return [
        {"name": item["name"], "mountPath": places[item["name"]], "readOnly": "persistentVolumeClaim" not in item}
        for item in _optional_volumes(spec)
    ]


def _probe(path: str, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }
