"""No scale-in on missing data, beside the same run with data, which does scale in."""

from collections.abc import Callable
from typing import Any

from dev.cluster import Cluster

Wait = Callable[[Callable[[], object], float, str], None]
CALM = {"scaleDown": {"stabilizationSeconds": 30, "periodSeconds": 15, "maxPercent": 100}}
# Four pods beside Prometheus and the operator, on a node of two cores.
HALF_OF_THE_DEMO = {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"cpu": "500m", "memory": "2Gi"}}
ONE_IS_ENOUGH = {"spec": {"autoscaling": {"minReplicas": 1}}}


def ready(services: Any, name: str) -> tuple[int, int]:
    """Replicas asked for, and Ready ones."""
    deployment = services.deployment(name) or {"spec": {"replicas": 0}}
    return deployment["spec"]["replicas"], deployment.get("status", {}).get("readyReplicas", 0)


def test_missing_data_never_scales_in_and_the_same_run_with_data_does(
    cluster: Cluster, services: Any, eventually: Wait, throughout: Wait
) -> None:
    for name in ("calm", "blind"):
        services.create(name, {"resources": HALF_OF_THE_DEMO}, minReplicas=2, **CALM)
    for name in ("calm", "blind"):
        eventually(lambda n=name: ready(services, n) == (2, 2), 240, f"{name}: two pods wanted and Ready")
        eventually(lambda n=name: active(services, n) == "True", 120, f"{name}: ScalingActive")
    services.patch("calm", ONE_IS_ENOUGH)
    eventually(lambda: ready(services, "calm") == (1, 1), 120, "scale-in while Prometheus answers")

    cluster.set_prometheus(running=False)
    try:
        services.patch("blind", ONE_IS_ENOUGH)
        throughout(lambda: services.replicas("blind") == 2, 90, "two replicas while Prometheus is away")
        assert active(services, "blind") == "False"
        assert services.condition("blind", "ScalingActive")["reason"] == "MetricsMissing"
    finally:
        cluster.set_prometheus(running=True)
    eventually(lambda: services.replicas("blind") == 1, 180, "scale-in after Prometheus is back")


def active(services: Any, name: str) -> str:
    """Status of the condition ScalingActive; "" while there is none."""
    return str(services.condition(name, "ScalingActive").get("status", ""))
