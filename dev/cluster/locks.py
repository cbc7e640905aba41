"""Locks on files: held by a process, released with it however it ends. They know nothing of what they guard."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def take(path: Path) -> int | None:
    """The lock's file descriptor, or None when another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_free(path: Path) -> bool:
    if not path.exists():
        return True
    descriptor = take(path)
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


def holder(path: Path, table: Path = Path("/proc/locks")) -> int | None:
    """The process that holds the lock, as the kernel says: a file with a pid in it could name a wrong one."""
    inode = path.stat().st_ino
    for line in table.read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
            return int(fields[4])
    return None
