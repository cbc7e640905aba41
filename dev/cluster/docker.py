"""Our images by docker, for kind and for a user's own cluster. It does not know Kubernetes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from dev.cluster import recipes
from dev.cluster.engine import missing_programs
from dev.cluster.errors import ClusterError
from dev.cluster.paths import REPOSITORY, Cache
from dev.cluster.progress import run_long


def build(cache: Cache, environment: Mapping[str, str]) -> dict[str, str]:
    for target, image in recipes.OURS.items():
        command = build_command(recipes.ours(target, environment, None))
        log = cache.logs / f"image-chattts-{target}.log"
        run_long(f"building image {image}", command, log=log, env={**os.environ, "DOCKER_BUILDKIT": "1"})
    return dict(recipes.OURS)


def build_command(recipe: recipes.Recipe) -> list[str]:
    arguments = [word for item in recipe.arguments.items() for word in ("--build-arg", "=".join(item))]
    target = ["--target", recipe.target] if recipe.target else []
    return ["docker", "build", *target, *arguments, "--tag", recipe.image, str(REPOSITORY)]


def push(cache: Cache, image: str, target: str) -> None:
    run_long(f"tagging {target}", ["docker", "tag", image, target], log=cache.logs / "push.log")
    run_long(f"pushing {target}", ["docker", "push", target], log=cache.logs / "push.log")


def programs(*names: str) -> list[Path]:
    """Programs that kind or the user's cluster needs; here they are not built."""
    there = {name: shutil.which(name) for name in names}
    problem = missing_programs(there)
    if problem:
        raise ClusterError(problem)
    return [Path(path) for path in there.values() if path]
