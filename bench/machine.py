"""The machine that was measured on, and the checkpoint that is used where none is named."""

from __future__ import annotations

import os
from pathlib import Path

from chattts_server.engine.random_checkpoint import Size, make_checkpoint
from dev.cluster.paths import Cache


def processor() -> str:
    """The kernel's own word."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")


def checkpoint_of(given: Path | None, size: Size) -> Path:
    """The folder that was named, or a random checkpoint of the project's cache, made once."""
    if given is not None:
        return given
    folder = Cache.from_environment(os.environ).root / "checkpoints" / f"{size}-1"
    if not (folder / "sha256_map.json").exists():
        print(f"making a random {size} checkpoint in {folder}", flush=True)
        make_checkpoint(folder, size, seed=1)
    return folder
