"""How much memory this process may still take: the machine's and the cgroup's word. Knows no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from chattts_server.engine.threads import CGROUP_OF_PROCESS, CGROUP_ROOT

MEMINFO = Path("/proc/meminfo")


def free_memory(root: Path = CGROUP_ROOT, own: Path = CGROUP_OF_PROCESS, meminfo: Path = MEMINFO) -> int:
    """Bytes: what the machine has available, or the smallest limit of the process's groups where that is less."""
    available = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:"))
    return min([1024 * int(available.split()[1]), *_limits(root, own)])


def _limits(root: Path, own: Path) -> Iterator[int]:
    """Of the process's own group and of all groups above it, cgroup v2 and v1."""
    for line in own.read_text().splitlines() if own.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base, name = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        relative = Path(path.strip("/"))
        # A path that leads out of the namespace ("/../..") is not visible here; the root of the mount then is ours.
        parents = [parent for parent in [relative, *relative.parents] if ".." not in parent.parts]
        for file in {base / name, *(base / parent / name for parent in parents)}:
            text = file.read_text().strip() if file.is_file() else "max"
            if text != "max":
                yield int(text)
