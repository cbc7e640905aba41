"""The local node from outside: Kubernetes without Docker. It does not know what runs on it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dev.cluster import cgroups, images, layers, locks, recipes
from dev.cluster.components import CONTAINERD_ROOT, KEEP, PAUSE_IMAGE, SOCKET
from dev.cluster.errors import ClusterError
from dev.cluster.manifests import MonitoringImages
from dev.cluster.packages import install_packages
from dev.cluster.paths import REPOSITORY, Cache, State
from dev.cluster.progress import run, step
from dev.cluster.tools import binary, build_tools, record_seconds

BINARIES = {
    "etcd": ("etcd", "server"),
    "coredns": ("coredns", "coredns"),
    "kube-apiserver": ("kubernetes", "kube-apiserver"),
    "kube-controller-manager": ("kubernetes", "kube-controller-manager"),
    "kube-scheduler": ("kubernetes", "kube-scheduler"),
    "kubelet": ("kubernetes", "kubelet"),
    "kube-proxy": ("kubernetes", "kube-proxy"),
}
READY_WITHIN = 90.0
KEPT = ("log", "lock")
"""What `down` leaves of the state folder: the logs of the last run, for whoever asks why."""


class LocalNode:
    """One node of real components in its own namespaces; see `inside.py` and `guard.py`."""

    name = "local node"

    def __init__(self, state: State, cache: Cache) -> None:
        self.state, self.cache = state, cache
        self.kubeconfig = state.kubeconfig
        self.kubectl_path = binary(cache, "kubernetes", "kubectl")
        self.helm_path = binary(cache, "helm", "helm")
        self._leash: int | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._keys: dict[str, str] = {}

    def up(self, *, keep: bool) -> None:
        """Starts the node unless it runs. Not `keep`: it ends with this process, however that ends."""
        install_packages()
        build_tools(self.cache)
        images.build_pause(self.cache)
        if self.is_up():
            return
        self.down()
        self.state.root.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        with step("starting the node"):
            self._guard = self._start_guard()
            self._wait_ready(self._guard)
            self.load([PAUSE_IMAGE])
        record_seconds(self.cache, "node start", time.monotonic() - started)
        if keep:
            self._let_go()

    def is_up(self) -> bool:
        return self.state.node.exists() and not locks.is_free(self.state.lock)

    def down(self) -> None:
        """Ends the node if there is one, and removes what a killed one has left. Safe to call at any time."""
        if not locks.is_free(self.state.lock):
            self._end_guard()
        if self._guard is not None:
            self._guard.wait(10)
            self._guard = None
        cgroups.remove(self.state.cgroup)
        if self.state.root.exists():
            for path in self.state.root.iterdir():
                if path.name not in KEPT:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def build(self) -> dict[str, str]:
        """All checkouts share the storage and its names; the key tells whose image it is."""
        install_packages()
        self._keys = images.build_ours(self.cache, os.environ)
        return dict(recipes.OURS)

    def monitoring_images(self) -> MonitoringImages:
        """One image holds all three programs."""
        build_tools(self.cache, ["prometheus", "prometheus-operator"])
        image = images.build_prometheus(self.cache)
        self.load([image])
        return MonitoringImages(image, image, image, operator_command=["/bin/operator"])

    def load(self, names: Sequence[str]) -> None:
        """Makes images of the cache's storage known to the node; only what it lacks is transferred."""
        root = Path(str(self._running()["containerd_root"]))
        for name in names:
            label = (images.KEY, self._keys[name]) if name in self._keys else None
            layers.hand_over(
                name,
                storage=self.cache.storage,
                root=root,
                root_inside=CONTAINERD_ROOT,
                ctr=self._ctr,
                label=label,
            )

    def place(self, folder: Path) -> str:
        """The path under which a pod on the node sees this folder of the host."""
        return str(folder.resolve())

    def enter(self, *namespaces: str) -> list[str]:
        """The start of a command that runs inside the node; namespaces: `--mount`, `--net`, `--pid`."""
        return ["nsenter", "--target", str(self._running()["inner"]), *namespaces, "--"]

    def status(self) -> dict[str, object]:
        return {"engine": self.name, "up": self.is_up(), **(self._running() if self.is_up() else {})}

    def gpus_changed(self, gpus: int) -> None:
        """The node's GPU keeper reads this file."""
        self.state.gpus.write_text(f"{gpus}\n")

    def _ctr(self, *arguments: str, stdin: bytes | None = None) -> str:
        command = [*self.enter("--mount"), "ctr", "-a", SOCKET, "-n", "k8s.io", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, check=False)
        if done.returncode != 0:
            raise ClusterError(f"ctr {' '.join(arguments[:3])}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout.decode()

    def _running(self) -> dict[str, object]:
        if not self.state.node.exists():
            raise ClusterError("the cluster is not up: python -m dev.cluster up")
        running: dict[str, object] = json.loads(self.state.node.read_text())
        return running

    def _start_guard(self) -> subprocess.Popen[bytes]:
        self.state.logs.mkdir(parents=True, exist_ok=True)
        binaries = {name: str(binary(self.cache, *where)) for name, where in BINARIES.items()}
        theirs, self._leash = os.pipe()
        command = [sys.executable, "-m", "dev.cluster.guard", str(self.state.root), str(theirs), json.dumps(binaries)]
        try:
            with (self.state.logs / "node.log").open("wb") as log:
                return subprocess.Popen(
                    command,
                    cwd=REPOSITORY,
                    pass_fds=(theirs,),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        finally:
            os.close(theirs)

    def _let_go(self) -> None:
        if self._leash is not None:
            os.write(self._leash, KEEP)
            os.close(self._leash)
            self._leash = None

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while not self._node_is_ready():
            log = self.state.logs / "node.log"
            if process.poll() is not None:
                raise ClusterError(f"the node did not start: {log.read_text()[-2000:]}")
            if time.monotonic() > deadline:
                raise ClusterError(f"the node is not Ready after {READY_WITHIN:.0f} s: see {self.state.logs}")
            time.sleep(0.3)

    def _node_is_ready(self) -> bool:
        if not self.state.node.exists():
            return False
        kubectl = (str(self.kubectl_path), f"--kubeconfig={self.kubeconfig}")
        ready = ("get", "nodes", "-o", "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}")
        # A bare pod is refused while its namespace has no account.
        account = ("get", "serviceaccount", "default", "-o", "name")
        try:
            return [run([*kubectl, *question]).strip() for question in (ready, account)] == [
                "True",
                "serviceaccount/default",
            ]
        except ClusterError:  # not yet
            return False

    def _end_guard(self) -> None:
        """The guard holds the lock until it has cleaned up."""
        for attempt in (signal.SIGTERM, signal.SIGKILL):
            pid = locks.holder(self.state.lock)
            if pid is not None:
                os.kill(pid, attempt)
            deadline = time.monotonic() + 40
            while time.monotonic() < deadline:
                if locks.is_free(self.state.lock):
                    return
                time.sleep(0.05)
        raise ClusterError(f"the node of {self.state.root} does not end")
