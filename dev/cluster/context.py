"""The user's own cluster: the current context of their kubeconfig. It is neither started nor ended here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from dev.cluster import docker
from dev.cluster.errors import ClusterError
from dev.cluster.kind import PUBLISHED
from dev.cluster.manifests import MonitoringImages


class CurrentContext:
    name = "current context"

    def __init__(self, environment: Mapping[str, str]) -> None:
        default = Path(environment.get("HOME", str(Path.home()))) / ".kube" / "config"
        self.kubeconfig = Path(environment.get("KUBECONFIG", "").split(os.pathsep)[0] or default)
        self.kubectl_path, self.helm_path = docker.programs("kubectl", "helm")
        self._registry = environment.get("REGISTRY", "").rstrip("/")

    def up(self, *, keep: bool) -> None:  # noqa: ARG002
        if not self.kubeconfig.exists():
            raise ClusterError(f"USE_CURRENT_CONTEXT=1, but there is no kubeconfig at {self.kubeconfig}")

    def down(self) -> None:
        pass

    def is_up(self) -> bool:
        return self.kubeconfig.exists()

    def build(self) -> dict[str, str]:
        """Pods of that cluster can only pull: the images were pushed by `make images REGISTRY=...`."""
        if not self._registry:
            raise ClusterError(
                "USE_CURRENT_CONTEXT=1 needs REGISTRY=host/path: push there with `make images REGISTRY=...`"
            )
        tag = version("chattts-k8s")
        return {target: f"{self._registry}/chattts-{target}:{tag}" for target in ("server", "operator")}

    def load(self, names: Sequence[str]) -> None:
        pass

    def monitoring_images(self) -> MonitoringImages:
        return PUBLISHED

    def place(self, folder: Path) -> str:
        raise ClusterError(
            f"your own cluster does not see {folder}: make the claim that the demo names and copy the files into it"
        )

    def gpus_changed(self, gpus: int) -> None:
        """Nothing keeps them there."""

    def enter(self, *namespaces: str) -> list[str]:  # noqa: ARG002
        raise ClusterError("only the local node can be entered")

    def status(self) -> dict[str, object]:
        return {"engine": self.name, "up": self.is_up(), "kubeconfig": str(self.kubeconfig)}
