"""Finds Chromium, or installs Debian's: what the tests of the page run in. It does not know the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from dev.cluster.errors import ClusterError
from dev.cluster.packages import apt_install

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def chromium() -> str:
    """The path of a Chromium. Raises ClusterError when there is none and none can be installed."""
    if (path := find()) is None:
        if (problem := why_not(is_root=os.geteuid() == 0, has_apt=shutil.which("apt-get") is not None)) is not None:
            raise ClusterError(problem)
        apt_install(["chromium"])
        path = find()
    if path is None:
        raise ClusterError("the package chromium is installed and brings no program of that name")
    return path


def find(which: Callable[[str], str | None] = shutil.which) -> str | None:
    return next((path for program in PROGRAMS if (path := which(program)) is not None), None)


def why_not(*, is_root: bool, has_apt: bool) -> str | None:
    """The one line for a person whose machine has no browser, or None."""
    if is_root and has_apt:
        return None
    return f"the page is tested in a real browser and there is none: install one of {', '.join(PROGRAMS)}"
