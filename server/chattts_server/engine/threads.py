"""How many threads torch may use: what the cgroup's CPU quota pays for, not the node's cores. Knows no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_OF_PROCESS = Path("/proc/self/cgroup")


def cpu_threads(root: Path = CGROUP_ROOT, own: Path = CGROUP_OF_PROCESS, cores: int | None = None) -> int:
    """`cpu: 500m` -> 1, `cpu: 2500m` -> 2 (a third would be throttled half of the time), no quota -> all cores."""
    cores = cores or len(os.sched_getaffinity(0))
    quotas = [quota for quota in _quotas(root, own) if quota > 0]
    return max(1, min([cores, *(int(quota) for quota in quotas)]))


def _quotas(root: Path, own: Path) -> Iterator[float]:
    """In cores, of the process's own group and of all groups above it, cgroup v2 and v1."""
    for line in own.read_text().splitlines() if own.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        if controllers and not base.is_dir():
            base = root / "cpu"
        relative = Path(path.strip("/"))
        # A path that leads out of the namespace ("/../..") is not visible here; the root of the mount then is ours.
        groups = [base, *(base / parent for parent in [*relative.parents, relative] if ".." not in parent.parts)]
        for group in groups:
            quota = _v1_quota(group) if controllers else _v2_quota(group)
            if quota is not None:
                yield quota


def _v2_quota(group: Path) -> float | None:
    text = _read(group / "cpu.max")
    if text is None or text.split()[0] == "max":
        return None
    quota, period = text.split()
    return int(quota) / int(period)


def _v1_quota(group: Path) -> float | None:
    quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
    if quota is None or period is None or int(quota) <= 0:
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
