"""What the demo and the end-to-end tests put on a cluster: operator chart, model volume, TTSService, load files."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from dev.cluster import Cluster

ROOT = Path(__file__).parents[2]
OPERATOR_NAMESPACE = "chattts-system"
NAMESPACE = "speech"
PROMETHEUS_URL = "http://prometheus-operated.monitoring.svc:9090"
SAMPLE = ROOT / "manifests" / "samples" / "demo.yaml"


def checkpoint(out: Path, model: Path | None) -> Path:
    """The folder with the weights: the user's, or a random `tiny` checkpoint made under `out`."""
    if model is not None:
        if not (model / "asset").is_dir():
            raise SystemExit(f"{model}: no folder `asset` in it; README, 'Real weights', says how to get them")
        return model.resolve()
    folder = out / "tiny"
    if not (folder / "asset" / "Embed.safetensors").exists():
        shutil.rmtree(folder, ignore_errors=True)
        command = [
            sys.executable,
            "-m",
            "chattts_server",
            "make-checkpoint",
            "--size",
            "tiny",
            "--seed",
            "1",
            str(folder),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def namespaces(cluster: Cluster) -> None:
    """The namespace of the services, with Pod Security `restricted` enforced."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(body))


def operator(cluster: Cluster, *settings: str) -> None:
    """`helm install` of the chart, wait until the operator is Ready."""
    chart = ROOT / "charts" / "chattts-operator"
    values = {
        "image.repository": cluster.images["operator"].rpartition(":")[0],
        "image.tag": cluster.images["operator"].rpartition(":")[2],
        "defaults.server.image": cluster.images["server"],
        "prometheus.url": PROMETHEUS_URL,
    }
    flags = [word for key, value in values.items() for word in ("--set-string", f"{key}={value}")]
    cluster.helm(
        "upgrade",
        "--install",
        "chattts-operator",
        str(chart),
        "--namespace",
        OPERATOR_NAMESPACE,
        "--create-namespace",
        "--wait",
        "--timeout",
        "180s",
        *flags,
        *settings,
    )


def demo_service(**autoscaling: Any) -> dict[str, Any]:
    """manifests/samples/demo.yaml, with changed fields of spec.autoscaling where given."""
    service: dict[str, Any] = yaml.safe_load(SAMPLE.read_text())
    service["spec"]["autoscaling"].update(autoscaling)
    return service


def full_size_service() -> dict[str, Any]:
    """The demo's TTSService for weights of the released size: on a CPU a request takes half a minute and more."""
    service = demo_service(mode="None")
    service["spec"]["server"]["requestTimeoutSeconds"] = 300
    service["spec"]["rollout"] = {"drainSeconds": 300}
    service["spec"]["resources"] = {kind: {"cpu": "1500m", "memory": "6Gi"} for kind in ("requests", "limits")}
    return service


def apply(cluster: Cluster, body: dict[str, Any], namespace: str = NAMESPACE) -> None:
    """`kubectl apply` as a user does it."""
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(body))
