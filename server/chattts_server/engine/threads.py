"""How many threads torch may use: what the cgroup's CPU quota pays for, not the node's cores. Knows no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from chattts_server.engine.cgroup import CGROUP_OF_PROCESS, CGROUP_ROOT, own_groups, read

# How often a thread that waits for the others looks again before it sleeps (libgomp). By default it looks for as long
# as a thread may run: beside one busy neighbour on two cores a step then took 100 times as long. A thread that sleeps
# must be woken, and a virtual machine takes its time for that: with 2000, a step alone took 1.3 times as long on one
# (Xeon) and 1.03 times on another (EPYC). With 6000 it is as fast as ever, and beside a busy neighbour it takes 2.4
# times as long.
SPINS = "6000"


def thread_environment(threads: int) -> Mapping[str, str]:
    """Read by the libraries when they are loaded: for the environment of a process that is started."""
    return {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": SPINS}


def cpu_threads(root: Path = CGROUP_ROOT, own: Path = CGROUP_OF_PROCESS, cores: int | None = None) -> int:
    """`cpu: 500m` -> 1, `cpu: 2500m` -> 2 (a third would be throttled half of the time), no quota -> all cores."""
    cores = cores or len(os.sched_getaffinity(0))
    quotas = [quota for quota in _quotas(root, own) if quota > 0]
    return max(1, min([cores, *(int(quota) for quota in quotas)]))


def _quotas(root: Path, own: Path) -> Iterator[float]:
    """In cores."""
    for group, version_1 in own_groups("cpu", root, own):
        quota = _v1_quota(group) if version_1 else _v2_quota(group)
        if quota is not None:
            yield quota


def _v2_quota(group: Path) -> float | None:
    text = read(group / "cpu.max")
    if text is None or text.split()[0] == "max":
        return None
    quota, period = text.split()
    return int(quota) / int(period)


def _v1_quota(group: Path) -> float | None:
    quota, period = read(group / "cpu.cfs_quota_us"), read(group / "cpu.cfs_period_us")
    if quota is None or period is None or int(quota) <= 0:
        return None
    return int(quota) / int(period)
