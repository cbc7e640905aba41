"""The cluster as the demo and the tests see it: one class, whatever it runs on. It does not know what is deployed."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from dev.cluster import manifests, monitoring
from dev.cluster.components import GPU
from dev.cluster.context import CurrentContext
from dev.cluster.engine import Engine, choose
from dev.cluster.errors import ClusterError
from dev.cluster.kind import KindCluster
from dev.cluster.node import LocalNode
from dev.cluster.paths import Cache, State
from dev.cluster.progress import run, step


class Cluster:
    """`Cluster.up(gpus=4)` or, for one that runs already, `Cluster.current()`."""

    def __init__(self, engine: Engine, images: Mapping[str, str] | None = None) -> None:
        self.engine = engine
        self.images = dict(images or {})
        """Target of the Dockerfile (`server`, `operator`) -> the image's name in this cluster."""

    @classmethod
    def up(cls, gpus: int = 0, *, keep: bool = True, images: bool = True) -> Cluster:
        """Builds what is missing, starts the cluster unless it runs, sets its GPUs and loads our images.

        Not `keep`: the cluster ends with this process, even if that is killed.
        """
        cluster = cls(engine_of(os.environ))
        # Images first: a failed build then has started nothing.
        if images:
            cluster.images = cluster.engine.build()
        cluster.engine.up(keep=keep)
        cluster.set_gpus(gpus)
        cluster.engine.load(list(cluster.images.values()))
        return cluster

    @classmethod
    def current(cls) -> Cluster:
        """The running cluster of this checkout."""
        cluster = cls(engine_of(os.environ))
        if not cluster.engine.is_up():
            raise ClusterError("the cluster is not up: python -m dev.cluster up")
        return cluster

    @classmethod
    def is_up(cls) -> bool:
        return engine_of(os.environ).is_up()

    def down(self) -> None:
        self.engine.down()

    @property
    def kubeconfig(self) -> Path:
        return self.engine.kubeconfig

    @property
    def kubectl_path(self) -> Path:
        return self.engine.kubectl_path

    def kubectl_command(self, *arguments: str) -> list[str]:
        """For callers that read the output while it runs."""
        return [str(self.engine.kubectl_path), f"--kubeconfig={self.kubeconfig}", *arguments]

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """stdout; raises CommandError with kubectl's stderr."""
        return run(self.kubectl_command(*arguments), stdin=stdin)

    def helm(self, *arguments: str) -> str:
        return run([str(self.engine.helm_path), f"--kubeconfig={self.kubeconfig}", *arguments], env=self.environment())

    def environment(self) -> dict[str, str]:
        """For a shell or a child process that shall use this cluster."""
        path = f"{self.engine.kubectl_path.parent}:{self.engine.helm_path.parent}:{os.environ.get('PATH', '')}"
        return {**os.environ, "PATH": path, "KUBECONFIG": str(self.kubeconfig)}

    def set_gpus(self, gpus: int) -> None:
        """Fake GPUs of the node; returns when the scheduler can count on them. A user's own cluster is left alone."""
        self.engine.gpus_changed(gpus)
        if isinstance(self.engine, CurrentContext):
            return
        node = self.kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
        value = {GPU: str(gpus)}
        patch = json.dumps({"status": {"capacity": value, "allocatable": value}})
        self.kubectl("patch", "node", node, "--subresource=status", "--type=merge", "--patch", patch)

    def create_volume(self, claim: str, namespace: str, host_dir: Path) -> None:
        """A bound claim that shows a folder of this machine to pods. In a user's own cluster theirs is taken."""
        if isinstance(self.engine, CurrentContext) and self.kubectl(
            "get", "-n", namespace, "pvc", claim, "--ignore-not-found", "-o", "name"
        ):
            return
        path = self.engine.place(host_dir)
        objects = manifests.volume(claim, namespace, path)
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifests.as_list(objects))
        bound = "--for=jsonpath={.status.phase}=Bound"
        self.kubectl("wait", "-n", namespace, f"pvc/{claim}", bound, "--timeout=60s")

    def load(self, *images: str) -> None:
        self.engine.load(images)

    def install_prometheus(self) -> None:
        """prometheus-operator and its Prometheus `monitoring/dev`; returns when it is Ready."""
        with step("Prometheus"):
            monitoring.install(self)

    def set_prometheus(self, *, running: bool) -> None:
        """Takes Prometheus away, or brings it back (with empty memory); returns when it is so."""
        monitoring.scale(self, 1 if running else 0)

    def enter(self, command: Sequence[str], *, namespaces: Sequence[str] = ("--net",)) -> str:
        """Runs a command inside the node's namespaces (local node only)."""
        return run([*self.engine.enter(*namespaces), *command])

    def wait_until(self, what: str, seconds: float, *arguments: str, wanted: str) -> None:
        """Asks kubectl until its output is as wanted."""
        deadline = time.monotonic() + seconds
        while (seen := self.kubectl(*arguments).strip()) != wanted:
            if time.monotonic() > deadline:
                raise ClusterError(f"{what} after {seconds:.0f} s: wanted {wanted!r}, seen {seen!r}")
            time.sleep(0.3)


def engine_of(environment: Mapping[str, str]) -> Engine:
    state, cache = State.from_environment(environment), Cache.from_environment(environment)
    if state.node.exists():  # a node that runs is asked for by its state, not by what else this machine has
        return LocalNode(state, cache)
    kind = choose(environment, docker_works=docker_works(), is_linux=platform.system() == "Linux")
    if kind == "context":
        return CurrentContext(environment)
    return KindCluster(state, cache, environment) if kind == "kind" else LocalNode(state, cache)


def docker_works() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    return subprocess.run([docker, "info"], capture_output=True, check=False, timeout=30).returncode == 0
