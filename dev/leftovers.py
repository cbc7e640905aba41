"""What a node could leave behind on this machine: processes of other namespaces, mounts, cgroups, network namespaces.

Looks only; compare two looks to know what came in between.
"""

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def seen() -> frozenset[str]:
    """One line for each thing, readable in an assertion."""
    return frozenset([*_processes(), *_mounts(), *_cgroups(), *_network_namespaces()])


def _processes() -> list[str]:
    """Those of another process namespace than ours: a node and its pods live in one of their own."""
    ours = Path("/proc/self/ns/pid").readlink()
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and (folder / "ns" / "pid").readlink() != ours:
                found.append(f"process {folder.name} {(folder / 'comm').read_text().strip()}")
        except OSError:  # ended meanwhile
            continue
    return found


def _mounts() -> list[str]:
    return [f"mount {line.split()[1]}" for line in Path("/proc/self/mounts").read_text().splitlines()]


def _cgroups() -> list[str]:
    """Only a node's: other programs of this machine come and go."""
    return [f"cgroup {path}" for path in CGROUPS.rglob("*chattts*") if path.is_dir()]


def _network_namespaces() -> list[str]:
    folder = Path("/run/netns")
    return [f"network namespace {path.name}" for path in folder.iterdir()] if folder.is_dir() else []
