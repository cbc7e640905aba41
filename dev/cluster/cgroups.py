"""The cgroup that a node's pods live in. It knows both cgroup versions, and no Kubernetes."""

from __future__ import annotations

import time
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")


def make(name: str, mount: Path = MOUNT) -> None:
    """The kubelet wants its --cgroup-root to exist."""
    if (mount / "cgroup.controllers").exists():
        (mount / name).mkdir(exist_ok=True)
        _hand_down(mount)
        _hand_down(mount / name)
        return
    for hierarchy in _hierarchies(mount):
        (hierarchy / name).mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            # An empty cpuset takes no process.
            if (hierarchy / setting).exists():
                (hierarchy / name / setting).write_text((hierarchy / setting).read_text())


def remove(name: str, mount: Path = MOUNT, patience: float = 10) -> None:
    """Removes the empty cgroups that pods leave. Processes that have just been killed take a moment to go."""
    deadline = time.monotonic() + patience
    while _remove_trees([hierarchy / name for hierarchy in [mount, *_hierarchies(mount)]]):
        if time.monotonic() > deadline:
            raise TimeoutError(f"cgroup {name} is still in use after {patience:.0f} s")
        time.sleep(0.1)


def _hierarchies(mount: Path) -> list[Path]:
    return [folder for folder in mount.iterdir() if (folder / "cgroup.procs").exists() and not folder.is_symlink()]


def _hand_down(folder: Path) -> None:
    for controller in (folder / "cgroup.controllers").read_text().split():
        try:
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError:  # some controllers cannot be handed down here; the kubelet says so if it needs one of them
            continue


def _remove_trees(folders: list[Path]) -> bool:
    """Tries all of them. True if something is left."""
    return sum(_remove_tree(folder) for folder in folders) > 0


def _remove_tree(folder: Path) -> bool:
    """True if something is left."""
    if not folder.is_dir():
        return False
    if _remove_trees([child for child in folder.iterdir() if child.is_dir()]):
        return True
    try:
        folder.rmdir()
    except OSError:
        return True
    return False
