"""The control groups that this process is in, versions 1 and 2. Knows neither what is limited nor how."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_OF_PROCESS = Path("/proc/self/cgroup")


def own_groups(controller: str, root: Path, own: Path) -> Iterator[tuple[Path, bool]]:
    """(folder, is it version 1) of the process's own group and of all groups above it, for `cpu` or `memory`."""
    for line in own.read_text().splitlines() if own.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        if controllers and not base.is_dir():
            base = root / controller
        relative = Path(path.strip("/"))
        # A path that leads out of the namespace ("/../..") is not visible here; the root of the mount then is ours.
        inner = (parent for parent in [*relative.parents, relative] if ".." not in parent.parts)
        for group in [base, *(base / parent for parent in inner)]:
            yield group, bool(controllers)


def read(path: Path) -> str | None:
    """Its text without the line's end; None where there is none to be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return None
