"""The npm client of OpenAI, installed by its lock into the cache that all checkouts share. Needs Node 20 and npm."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from dev.cluster.paths import Cache

HERE = Path(__file__).parent / "openai_js"


def with_modules(folder: Path) -> Path:
    """Makes `import OpenAI from "openai"` work for the scripts of `folder`. Returns it."""
    (folder / "node_modules").symlink_to(_installed() / "node_modules")
    return folder


def _installed() -> Path:
    lock = (HERE / "package-lock.json").read_bytes()
    cache = Cache.from_environment(os.environ).root
    target = cache / f"openai-js-{hashlib.sha256(lock).hexdigest()[:16]}"
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        fresh = Path(scratch) / "fresh"
        fresh.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, fresh)
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=fresh, check=True)
        try:
            fresh.rename(target)  # all or nothing
        except OSError:
            if not target.exists():  # another run was faster
                raise
    return target
