"""A TTSService is always what it says: drift, deletion, refusals, missing GPUs. Pods need not be Ready for these."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dev.cluster import Cluster, CommandError
from dev.demo import install
from dev.kubeapi import APPS, CORE, KubeApi

ROOT = Path(__file__).parents[2]
Wait = Callable[[Callable[[], object], float, str], None]


def test_every_sample_is_accepted_by_the_api_server(cluster: Cluster) -> None:
    for sample in sorted((ROOT / "manifests" / "samples").glob("*.yaml")):
        cluster.kubectl("apply", "-n", install.NAMESPACE, "--dry-run=server", "-f", str(sample))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"autoscaling": {"mode": "Operator", "minReplicas": 5, "maxReplicas": 2}}, "minReplicas"),
        ({"autoscaling": {"mode": "Operator", "minReplicas": 0, "maxReplicas": 2}}, "minReplicas"),
        ({"server": {"maxQueueWaitMilliseconds": 900}}, "maxQueueWaitMilliseconds"),
        ({"model": {"source": "HuggingFace", "repository": "2Noise/ChatTTS"}}, "revision"),
        ({"autoscaling": {"mode": "Sometimes"}}, "Unsupported value"),
        ({"accelerator": {"count": 0}}, "accelerator.count"),
        ({"autoscaling": {"targets": {"qpsPerReplica": "many"}}}, "qpsPerReplica"),
    ],
)
def test_a_bad_ttsservice_is_refused_with_the_field_named(cluster: Cluster, spec: dict[str, Any], words: str) -> None:
    body = install.demo_service()
    for key, value in spec.items():
        body["spec"][key] = {**body["spec"].get(key, {}), **value}
    if "model" in spec:
        body["spec"]["model"] = spec["model"]
    with pytest.raises(CommandError, match=words):
        install.apply(cluster, body)


def test_a_pod_without_a_gpu_puts_the_schedulers_words_into_the_condition(services: Any, eventually: Wait) -> None:
    services.pending("no-gpu")
    eventually(
        lambda: services.condition("no-gpu", "CapacityAvailable").get("status") == "False",
        60,
        "CapacityAvailable=False",
    )
    assert "Insufficient nvidia.com/gpu" in services.condition("no-gpu", "CapacityAvailable")["message"]
    assert services.condition("no-gpu", "Ready")["status"] == "False"


def test_a_deployment_edited_by_hand_is_repaired(cluster: Cluster, services: Any, eventually: Wait) -> None:
    services.pending("drift")
    eventually(lambda: services.deployment("drift"), 30, "Deployment")
    image = services.deployment("drift")["spec"]["template"]["spec"]["containers"][0]["image"]
    cluster.kubectl("-n", install.NAMESPACE, "set", "image", "deployment/drift", "server=example.invalid/other:1")
    cluster.kubectl("-n", install.NAMESPACE, "scale", "deployment/drift", "--replicas=3")

    def repaired() -> bool:
        spec = services.deployment("drift")["spec"]
        return spec["replicas"] == 1 and spec["template"]["spec"]["containers"][0]["image"] == image

    eventually(repaired, 20, "image and replicas repaired")
    cluster.kubectl("-n", install.NAMESPACE, "delete", "service/drift")
    eventually(lambda: services.object(f"{CORE}/namespaces/%s/services/drift"), 20, "Service made again")


def test_a_ttsservice_deleted_while_the_operator_is_down_leaves_nothing(
    cluster: Cluster, api: KubeApi, services: Any, eventually: Wait
) -> None:
    services.pending("orphan")
    eventually(lambda: services.deployment("orphan"), 30, "Deployment")
    scale = ("-n", install.OPERATOR_NAMESPACE, "scale", "deployment/chattts-operator")
    cluster.kubectl(*scale, "--replicas=0")
    operators = "app.kubernetes.io/name=chattts-operator"
    eventually(lambda: not api.pods(install.OPERATOR_NAMESPACE, operators), 60, "operator gone")
    try:
        cluster.kubectl("-n", install.NAMESPACE, "delete", "tts/orphan", "--timeout=20s")
        services.forget("orphan")
        for kind in (
            f"{APPS}/namespaces/%s/deployments",
            f"{CORE}/namespaces/%s/services",
            f"{CORE}/namespaces/%s/pods",
        ):
            path = kind % install.NAMESPACE
            left = lambda p=path: (api.get(p, labelSelector="chattts.dev/service=orphan") or {})["items"]  # noqa: E731
            eventually(lambda left=left: not left(), 60, f"{path} of the deleted service gone")
    finally:
        cluster.kubectl(*scale, "--replicas=1")
        cluster.kubectl(
            "-n", install.OPERATOR_NAMESPACE, "rollout", "status", "deployment/chattts-operator", "--timeout=60s"
        )


def test_kubectl_get_tells_the_story_in_one_line(cluster: Cluster, services: Any, eventually: Wait) -> None:
    services.pending("story")
    eventually(lambda: services.condition("story", "Ready"), 30, "conditions")
    header, line = cluster.kubectl("-n", install.NAMESPACE, "get", "tts", "story").splitlines()
    assert header.split() == ["NAME", "READY", "REPLICAS", "DESIRED", "P99", "QPS", "REASON", "AGE"]
    assert line.split()[1] == "False"


def test_the_nodes_addresses_are_not_routed_from_the_host(cluster: Cluster) -> None:
    """Its namespace has no link to the outside, so no test traffic can leave this machine."""
    routes = subprocess.run(["ip", "route", "show"], capture_output=True, text=True, check=True).stdout
    assert "10.88." not in routes
    assert "10.89." not in routes
    assert "10.96." not in routes
