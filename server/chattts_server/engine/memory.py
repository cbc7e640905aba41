"""How much memory this process may still take: the machine's and the cgroup's word. Knows no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from chattts_server.engine.cgroup import CGROUP_OF_PROCESS, CGROUP_ROOT, own_groups, read

MEMINFO = Path("/proc/meminfo")


def free_memory(root: Path = CGROUP_ROOT, own: Path = CGROUP_OF_PROCESS, meminfo: Path = MEMINFO) -> int:
    """Bytes: what the machine has available, or the smallest limit of the process's groups where that is less."""
    available = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:"))
    return min([1024 * int(available.split()[1]), *_limits(root, own)])


def _limits(root: Path, own: Path) -> Iterator[int]:
    for group, version_1 in own_groups("memory", root, own):
        text = read(group / ("memory.limit_in_bytes" if version_1 else "memory.max"))
        if text is not None and text != "max":
            yield int(text)
