"""Where things lie: the cache that all checkouts share, and the state of one cluster. It creates nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Cache:
    """`${XDG_CACHE_HOME:-~/.cache}/chattts-k8s`: may be deleted at any time, costs only time."""

    root: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Cache:
        base = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or Path.home()) / ".cache"
        return cls(Path(base).resolve() / "chattts-k8s")

    @property
    def tools(self) -> Path:
        return self.root / "tools"

    @property
    def build_seconds(self) -> Path:
        """JSON object: what was built -> seconds, so that the demo can report its cold build."""
        return self.root / "build-seconds.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def storage(self) -> Path:
        """buildah's images and layers."""
        return self.root / "storage"

    @property
    def contexts(self) -> Path:
        """Build contexts with fixed time stamps."""
        return self.root / "contexts"

    @property
    def slots(self) -> Path:
        """containerd roots; a running node holds the lock of the one it uses."""
        return self.root / "containerd"


@dataclass(frozen=True, slots=True)
class State:
    """`.cluster/` (or CLUSTER_DIR): one cluster."""

    root: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], directory: Path = REPOSITORY) -> State:
        return cls((directory / environment.get("CLUSTER_DIR", ".cluster")).resolve())

    @property
    def identity(self) -> str:
        """Eight letters that differ between checkouts: they name the cgroup and the kind cluster."""
        return hashlib.sha256(str(self.root).encode()).hexdigest()[:8]

    @property
    def cgroup(self) -> str:
        return f"chattts-{self.identity}"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def node(self) -> Path:
        """JSON of the running node, written by its guard: pids, port, slot."""
        return self.root / "node.json"

    @property
    def gpus(self) -> Path:
        """How many fake GPUs the node shall have; read by the GPU keeper."""
        return self.root / "gpus"

    @property
    def logs(self) -> Path:
        return self.root / "log"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"
