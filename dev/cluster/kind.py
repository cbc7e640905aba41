"""The cluster on Docker, by kind. It does not know what runs on it."""

from __future__ import annotations

import atexit
from collections.abc import Mapping, Sequence
from pathlib import Path

from dev.cluster import docker
from dev.cluster.manifests import MonitoringImages
from dev.cluster.paths import Cache, State
from dev.cluster.progress import run, run_long

PUBLISHED = MonitoringImages(
    operator="quay.io/prometheus-operator/prometheus-operator:v0.85.0",
    reloader="quay.io/prometheus-operator/prometheus-config-reloader:v0.85.0",
    prometheus="quay.io/prometheus/prometheus:v3.8.0",
)


class KindCluster:
    """One kind cluster per checkout."""

    name = "kind"

    def __init__(self, state: State, cache: Cache, environment: Mapping[str, str]) -> None:
        self.state, self.cache, self._environment = state, cache, environment
        self.cluster = f"chattts-{state.identity}"
        self.kubeconfig = state.kubeconfig
        self.kubectl_path, self.helm_path, kind = docker.programs("kubectl", "helm", "kind")
        self._kind = str(kind)

    def up(self, *, keep: bool) -> None:
        if not keep:
            atexit.register(self.down)
        if self.is_up():
            return
        self.state.root.mkdir(parents=True, exist_ok=True)
        command = [self._kind, "create", "cluster", "--name", self.cluster, "--wait", "120s"]
        log = self.state.logs / "kind.log"
        run_long("starting kind", [*command, "--kubeconfig", str(self.kubeconfig)], log=log)

    def down(self) -> None:
        run([self._kind, "delete", "cluster", "--name", self.cluster, "--kubeconfig", str(self.kubeconfig)])

    def is_up(self) -> bool:
        return self.cluster in run([self._kind, "get", "clusters"]).split() and self.kubeconfig.exists()

    def build(self) -> dict[str, str]:
        return docker.build(self.cache, self._environment)

    def load(self, names: Sequence[str]) -> None:
        for name in names:
            command = [self._kind, "load", "docker-image", name, "--name", self.cluster]
            run_long(f"loading {name}", command, log=self.state.logs / "kind.log")

    def monitoring_images(self) -> MonitoringImages:
        return PUBLISHED

    def place(self, folder: Path) -> str:
        """kind's node has its own disk: the folder is copied there."""
        node, target = f"{self.cluster}-control-plane", f"/volumes/{folder.name}"
        run(["docker", "exec", node, "mkdir", "-p", target])
        run(["docker", "cp", f"{folder.resolve()}/.", f"{node}:{target}"])
        return target

    def gpus_changed(self, gpus: int) -> None:
        """Nothing keeps them there."""

    def enter(self, *namespaces: str) -> list[str]:  # noqa: ARG002
        return ["docker", "exec", f"{self.cluster}-control-plane"]

    def status(self) -> dict[str, object]:
        return {"engine": self.name, "up": self.is_up(), "cluster": self.cluster}
