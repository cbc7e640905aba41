"""No scale-in on missing data, beside the same run with data, which does scale in."""

from collections.abc import Callable
from typing import Any

from dev.cluster import Cluster
from dev.kubeapi import KubeApi

Wait = Callable[[Callable[[], object], float, str], None]
CALM = {"scaleDown": {"stabilizationSeconds": 30, "periodSeconds": 15, "maxPercent": 100}}


def ready(services: Any, name: str) -> tuple[int, int]:
    """Replicas asked for, and Ready ones."""
    deployment = services.deployment(name) or {"spec": {"replicas": 0}}
    return deployment["spec"]["replicas"], deployment.get("status", {}).get("readyReplicas", 0)


def two_ready(cluster: Cluster, services: Any, name: str, eventually: Wait) -> None:
    """Two Ready pods, held at two by minReplicas."""
    services.patch(name, {"spec": {"autoscaling": {"minReplicas": 2}}})
    eventually(lambda: ready(services, name) == (2, 2), 180, "two pods wanted and Ready")
    eventually(lambda: services.condition(name, "ScalingActive").get("status") == "True", 120, "ScalingActive")


def test_missing_data_never_scales_in_and_the_same_run_with_data_does(
    cluster: Cluster, api: KubeApi, services: Any, eventually: Wait, throughout: Wait
) -> None:
    services.create("calm", minReplicas=2, **CALM)
    two_ready(cluster, services, "calm", eventually)
    services.patch("calm", {"spec": {"autoscaling": {"minReplicas": 1}}})
    eventually(lambda: ready(services, "calm") == (1, 1), 120, "scale-in while Prometheus answers")

    two_ready(cluster, services, "calm", eventually)
    cluster.set_prometheus(running=False)
    try:
        services.patch("calm", {"spec": {"autoscaling": {"minReplicas": 1}}})
        throughout(lambda: services.replicas("calm") == 2, 90, "two replicas while Prometheus is away")
        assert services.condition("calm", "ScalingActive")["status"] == "False"
        assert services.condition("calm", "ScalingActive")["reason"] == "MetricsMissing"
    finally:
        cluster.set_prometheus(running=True)
    eventually(lambda: services.replicas("calm") == 1, 180, "scale-in after Prometheus is back")
