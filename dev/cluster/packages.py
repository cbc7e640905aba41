"""Debian packages that the node is made of. It does not know what they are for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping

from dev.cluster.errors import ClusterError
from dev.cluster.progress import run, say, step

PROGRAMS = {
    "runc": "runc",
    "containerd": "containerd",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "openssl": "openssl",
    "unshare": "util-linux",
    "sysctl": "procps",
}
"""Program -> Debian package that brings it."""


def install_packages() -> None:
    """Installs what is missing, and says so loudly: it changes the machine."""
    missing = missing_packages(lambda program: shutil.which(program) is not None)
    problem = why_not(missing, is_root=os.geteuid() == 0, has_apt=shutil.which("apt-get") is not None)
    if problem:
        raise ClusterError(problem)
    if missing:
        apt_install(missing)


def apt_install(packages: list[str]) -> None:
    say(f"INSTALLING DEBIAN PACKAGES on this machine: {' '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Debian's containerd would start a daemon of its own where systemd runs; nothing here needs it.
    with step("apt-get install"):
        run(["apt-get", "update", "-q"], env=environment)
        run(["apt-get", "install", "-qy", "--no-install-recommends", *packages], env=environment)


def missing_packages(is_there: Callable[[str], bool], programs: Mapping[str, str] = PROGRAMS) -> list[str]:
    return sorted({package for program, package in programs.items() if not is_there(program)})


def why_not(missing: list[str], *, is_root: bool, has_apt: bool) -> str | None:
    """The one line for a person whose machine cannot be a node, or None."""
    if not is_root:
        return f"without Docker a node needs root (namespaces, mounts, cgroups): run it as root, or {OTHERWISE}"
    if missing and not has_apt:
        return f"not a Debian, and the local node needs {', '.join(missing)}: install these, or {OTHERWISE}"
    return None


OTHERWISE = "start Docker (with kind, kubectl and helm), or set USE_CURRENT_CONTEXT=1 to use your own cluster"
