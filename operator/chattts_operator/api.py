"""Names of the API: group, kinds, labels, condition types and reasons. Constants only; imports nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

Body = dict[str, Any]  # a Kubernetes object, as the API server sends it

GROUP = "chattts.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

MANAGER = "chattts-operator"  # field manager of the children
STATUS_MANAGER = "chattts-operator-status"  # field manager of our status

LABEL_SERVICE = "chattts.dev/service"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
ANNOTATION_INTENT = "chattts.dev/intent"  # hash of what we applied last; on the child itself, never in a pod template
CHILD_SELECTOR = f"{LABEL_MANAGED_BY}={MANAGER}"
LABEL_FETCH = "chattts.dev/fetch"  # on the pods of the fetch Job, which are no servers and carry no LABEL_SERVICE
ANNOTATION_FETCH = "chattts.dev/fetch"  # on the fetch Job: what it fetches, and where to
# What we set spec.replicas to, in the same write: tells our number from a hand's. On the Deployment itself, and no
# annotation: `kubectl rollout undo` brings old annotations back with the old template, and leaves labels alone.
LABEL_REPLICAS = "chattts.dev/replicas"

SERVER_USER = 10001
HTTP_PORT = 8000
METRICS_PORT = 9090


class Key(NamedTuple):
    """One TTSService."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Kind:
    """Where a kind of object lives in the API."""

    group: str  # empty for the core group
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


TTS_SERVICE = Kind(GROUP, VERSION, "ttsservices", "TTSService")
DEPLOYMENT = Kind("apps", "v1", "deployments", "Deployment")
SERVICE = Kind("", "v1", "services", "Service")
POD = Kind("", "v1", "pods", "Pod")
EVENT = Kind("", "v1", "events", "Event")
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")
POD_MONITOR = Kind("monitoring.coreos.com", "v1", "podmonitors", "PodMonitor")
PROMETHEUS_RULE = Kind("monitoring.coreos.com", "v1", "prometheusrules", "PrometheusRule")

POD_DISRUPTION_BUDGET = Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
NETWORK_POLICY = Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
CLAIM = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap")
JOB = Kind("batch", "v1", "jobs", "Job")
NODE = Kind("", "v1", "nodes", "Node")

# In the order in which they are written: what pods need comes before the pods.
CHILD_KINDS = (
    CLAIM,
    JOB,
    NETWORK_POLICY,
    SERVICE,
    POD_DISRUPTION_BUDGET,
    DEPLOYMENT,
    POD_MONITOR,
    PROMETHEUS_RULE,
    CONFIG_MAP,
)
OPTIONAL_KINDS = (POD_MONITOR, PROMETHEUS_RULE)  # served only where prometheus-operator is installed

# Condition types, in the order in which they are shown.
READY = "Ready"
AVAILABLE = "Available"
PROGRESSING = "Progressing"
SCALING_ACTIVE = "ScalingActive"
SCALING_LIMITED = "ScalingLimited"
SCALING_EFFECTIVE = "ScalingEffective"
CAPACITY_AVAILABLE = "CapacityAvailable"
DRIVER_COMPATIBLE = "DriverCompatible"
MODEL_CACHED = "ModelCached"
CONFLICT = "Conflict"
CONDITION_TYPES = (
    READY,
    AVAILABLE,
    PROGRESSING,
    SCALING_ACTIVE,
    SCALING_LIMITED,
    SCALING_EFFECTIVE,
    CAPACITY_AVAILABLE,
    DRIVER_COMPATIBLE,
    MODEL_CACHED,
    CONFLICT,
)

MODE_NONE = "None"
MODE_OPERATOR = "Operator"


def key_of(body: Body) -> Key:
    """The TTSService itself, or the one a child belongs to by its label."""
    metadata = body["metadata"]
    name = metadata["name"]
    if body.get("kind") != TTS_SERVICE.kind:
        name = (metadata.get("labels") or {}).get(LABEL_SERVICE, name)
    return Key(metadata["namespace"], name)


def carries(body: Body, selector: str) -> bool:
    """Whether an object has all labels of a selector of equalities; the empty one takes all."""
    wanted = dict(part.split("=", 1) for part in selector.split(",") if part)
    return wanted.items() <= (body["metadata"].get("labels") or {}).items()


def child_name(kind: Kind, service: str) -> str:
    """One child of each kind. A claim and a ConfigMap share their kind with the user's own, so they get a suffix."""
    return service + {CLAIM: "-model", JOB: "-fetch", CONFIG_MAP: "-dashboard"}.get(kind, "")


def selector_labels(name: str) -> dict[str, str]:
    """Immutable for the life of a Deployment."""
    return {"app.kubernetes.io/name": "chattts", "app.kubernetes.io/instance": name, LABEL_SERVICE: name}


def labels(name: str) -> dict[str, str]:
    return {
        **selector_labels(name),
        "app.kubernetes.io/component": "server",
        "app.kubernetes.io/part-of": "chattts-k8s",
        LABEL_MANAGED_BY: MANAGER,
    }
