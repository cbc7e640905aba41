"""What each image is made of, as data, and the key that says when it has to be built again. It builds nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dev.cluster.paths import HERE, REPOSITORY

BASE_IMAGE = "localhost/python:3.11-slim-bookworm"
"""The base that is made here; BASE_IMAGE in the environment names another one."""
OURS = {"server": "localhost/chattts-server:dev", "operator": "localhost/chattts-operator:dev"}
PROMETHEUS_IMAGE = "localhost/prometheus:dev"
SOURCES = (
    "pyproject.toml",
    "hatch_build.py",
    "README.md",
    "LICENSE",
    "requirements/bootstrap.txt",
    "requirements/server.txt",
    "requirements/operator.txt",
    "operator",
    "server",
    "dev/cluster/images/build.sh",
)
"""What the Dockerfile copies; .dockerignore lists the same for docker, and a test compares the two."""


@dataclass(frozen=True, slots=True)
class Recipe:
    image: str
    dockerfile: Path
    files: Mapping[str, Path]
    """Path in the build context -> where it comes from."""
    target: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)

    def key(self) -> str:
        """Changes with everything that the image depends on, and with no time stamp."""
        digest = hashlib.sha256(repr((self.target, sorted(self.arguments.items()))).encode())
        digest.update(self.dockerfile.read_bytes())
        for name, source in sorted(self.files.items()):
            digest.update(name.encode() + b"\0")
            digest.update(source.read_bytes())
        return digest.hexdigest()[:16]


def ours(target: str, environment: Mapping[str, str], default_base: str | None) -> Recipe:
    """`server` or `operator`, out of the working tree."""
    arguments = {}
    base = environment.get("BASE_IMAGE") or default_base
    if base:
        arguments["BASE_IMAGE"] = base
    if target == "server" and environment.get("TORCH_INDEX_URL"):
        arguments["TORCH_INDEX_URL"] = environment["TORCH_INDEX_URL"]
    return Recipe(OURS[target], REPOSITORY / "Dockerfile", source_files(REPOSITORY), target, arguments)


def source_files(repository: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name in SOURCES:
        source = repository / name
        candidates = sorted(source.rglob("*")) if source.is_dir() else [source]
        for path in candidates:
            if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".pyc", ".so"):
                found[str(path.relative_to(repository))] = path
    return found


def pause(image: str, program: Path) -> Recipe:
    return Recipe(image, HERE / "images/pause.Dockerfile", {"pause": program})


def prometheus(programs: Mapping[str, Path], empty: Path) -> Recipe:
    files = {f"bin/{name}": path for name, path in programs.items()} | {"tmp/.keep": empty}
    return Recipe(PROMETHEUS_IMAGE, HERE / "images/prometheus.Dockerfile", files)
