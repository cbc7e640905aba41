"""Objects that the dev cluster needs, as pure builders. They know no cluster."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MONITORING = "monitoring"
Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class MonitoringImages:
    operator: str
    reloader: str
    prometheus: str
    operator_command: list[str] | None = None
    """Where one image holds all three programs."""


def volume(claim: str, namespace: str, path: str) -> list[Object]:
    """A volume of a folder on the node and the claim that it is made for; both name each other."""
    name = f"{namespace}-{claim}"
    common = {"accessModes": ["ReadWriteMany", "ReadOnlyMany"], "storageClassName": ""}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                **common,
                "capacity": {"storage": "10Gi"},
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": path, "type": "Directory"},
                "claimRef": {"namespace": namespace, "name": claim},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "namespace": namespace},
            "spec": {**common, "volumeName": name, "resources": {"requests": {"storage": "10Gi"}}},
        },
    ]


def namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def monitoring(images: MonitoringImages) -> list[Object]:
    """prometheus-operator, and what it and its Prometheus may do."""
    return [
        *_account("prometheus-operator", OPERATOR_RULES),
        *_account("prometheus", PROMETHEUS_RULES),
        _operator(images),
    ]


def prometheus(images: MonitoringImages, replicas: int = 1) -> Object:
    """The Prometheus `dev`: every PodMonitor and PrometheusRule of all namespaces."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "Prometheus",
        "metadata": {"name": "dev", "namespace": MONITORING},
        "spec": {
            "image": images.prometheus,
            "imagePullPolicy": "IfNotPresent",
            "version": "3.8.0",
            "replicas": replicas,
            "serviceAccountName": "prometheus",
            "podMonitorSelector": {},
            "podMonitorNamespaceSelector": {},
            "ruleSelector": {},
            "ruleNamespaceSelector": {},
            "scrapeInterval": "5s",
            "evaluationInterval": "15s",
            "retention": "6h",
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
            # A lost pod of a test cluster shall not wait for ten minutes.
            "terminationGracePeriodSeconds": 5,
        },
    }


OPERATOR_RULES = [
    {"apiGroups": ["monitoring.coreos.com"], "resources": ["*"], "verbs": ["*"]},
    {"apiGroups": ["apps"], "resources": ["statefulsets", "daemonsets"], "verbs": ["*"]},
    {"apiGroups": [""], "resources": ["configmaps", "secrets", "services", "services/finalizers"], "verbs": ["*"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "delete"]},
    {"apiGroups": [""], "resources": ["namespaces", "nodes", "endpoints"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["*"]},
    {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": ["get"]},
]
PROMETHEUS_RULES = [
    {"apiGroups": [""], "resources": ["nodes", "services", "endpoints", "pods"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]},
]


def _account(name: str, rules: Sequence[Object]) -> list[Object]:
    group = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": name, "namespace": MONITORING}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": MONITORING}},
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": list(rules)},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
            "subjects": [subject],
        },
    ]


def _operator(images: MonitoringImages) -> Object:
    labels = {"app.kubernetes.io/name": "prometheus-operator"}
    container = {
        "name": "operator",
        "image": images.operator,
        "imagePullPolicy": "IfNotPresent",
        "args": [f"--prometheus-config-reloader={images.reloader}", "--kubelet-endpoints=false"],
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True},
    }
    if images.operator_command:
        container["command"] = images.operator_command
    pod = {"serviceAccountName": "prometheus-operator", "containers": [container]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "prometheus-operator", "namespace": MONITORING, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def as_list(objects: Sequence[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
