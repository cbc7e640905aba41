"""Puts Prometheus on the cluster by prometheus-operator, takes it away, brings it back. It knows no rules."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dev.cluster import manifests
from dev.cluster.manifests import MONITORING
from dev.cluster.paths import Cache
from dev.cluster.tools import build_tools, share

if TYPE_CHECKING:
    from dev.cluster.cluster import Cluster

APPLY = ("apply", "--server-side", "--force-conflicts", "-f")
COUNTS = "jsonpath={.items[*].status.readyReplicas}/{.items[*].status.replicas}"


def install(cluster: Cluster) -> None:
    images = cluster.engine.monitoring_images()
    cache = Cache.from_environment(os.environ)
    build_tools(cache, ["prometheus-operator"])
    cluster.kubectl(*APPLY, str(share(cache, "prometheus-operator", "crds")))
    objects = [manifests.namespace(MONITORING), *manifests.monitoring(images)]
    cluster.kubectl(*APPLY, "-", stdin=manifests.as_list(objects))
    cluster.kubectl(*APPLY, "-", stdin=manifests.as_list([manifests.prometheus(images)]))
    _wait(cluster, 1)


def scale(cluster: Cluster, replicas: int) -> None:
    patch = f'{{"spec":{{"replicas":{replicas}}}}}'
    cluster.kubectl("patch", "-n", MONITORING, "prometheus/dev", "--type=merge", "-p", patch)
    _wait(cluster, replicas)


def _wait(cluster: Cluster, replicas: int) -> None:
    """The list is empty until the operator has made the StatefulSet, and `readyReplicas` is absent while it is 0."""
    question = ("get", "statefulset", "-n", MONITORING, "-l", "operator.prometheus.io/name=dev", "-o", COUNTS)
    wanted = f"{replicas or ''}/{replicas}"
    cluster.wait_until(f"Prometheus has {replicas} replicas", 180, *question, wanted=wanted)
