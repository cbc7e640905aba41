"""Which kind of cluster this machine gets, and what each kind must be able to do. It starts nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from dev.cluster.errors import ClusterError
from dev.cluster.manifests import MonitoringImages

Kind = Literal["node", "kind", "context"]
KINDS: dict[str, Kind] = {"node": "node", "kind": "kind", "context": "context"}


class Engine(Protocol):
    """A place where a Kubernetes runs: local node, kind, or the user's own cluster."""

    name: str
    kubeconfig: Path
    kubectl_path: Path
    helm_path: Path

    def up(self, *, keep: bool) -> None: ...

    def down(self) -> None: ...

    def is_up(self) -> bool: ...

    def build(self) -> dict[str, str]:
        """Builds our images; target -> the name under which pods find it."""

    def load(self, names: Sequence[str]) -> None:
        """Makes built images usable by pods."""

    def monitoring_images(self) -> MonitoringImages:
        """Images of Prometheus and its operator, usable by pods."""

    def place(self, folder: Path) -> str:
        """The path under which the node sees a folder of this machine."""

    def gpus_changed(self, gpus: int) -> None:
        """Told before the node's status is patched."""

    def enter(self, *namespaces: str) -> list[str]:
        """The start of a command that runs inside the node."""

    def status(self) -> dict[str, object]: ...


def choose(environment: Mapping[str, str], *, docker_works: bool, is_linux: bool) -> Kind:
    """The user's word first, then Docker, then the node without Docker."""
    wanted = environment.get("CLUSTER_ENGINE")
    if wanted and wanted not in KINDS:
        raise ClusterError(f"CLUSTER_ENGINE={wanted}: it is one of {', '.join(KINDS)}")
    if wanted:
        return KINDS[wanted]
    if environment.get("USE_CURRENT_CONTEXT") == "1":
        return "context"
    if docker_works:
        return "kind"
    if is_linux:
        return "node"
    raise ClusterError(
        "no cluster can be made here: start Docker (kind, kubectl and helm are then needed as well), "
        "or set USE_CURRENT_CONTEXT=1 to use the cluster of your kubeconfig"
    )


def missing_programs(there: Mapping[str, object]) -> str | None:
    """The one line about programs that are not on PATH, or None."""
    missing = [name for name, path in there.items() if path is None]
    return f"not on PATH: {', '.join(missing)}; install them first" if missing else None
