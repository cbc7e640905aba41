"""Builds the images with buildah into the cache. It does not know who runs them.

Time stamps play no part (neither in our keys nor in buildah's layer cache), so a clean clone finds every layer of an
earlier one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dev.cluster import layers, recipes
from dev.cluster.components import PAUSE_IMAGE
from dev.cluster.errors import ClusterError, CommandError
from dev.cluster.paths import HERE, Cache
from dev.cluster.progress import run, run_long, say, step
from dev.cluster.recipes import BASE_IMAGE, Recipe
from dev.cluster.tools import binary, record_seconds

DEBIAN = "bookworm"
DEBIAN_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"


CONTAINED = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""In namespaces of its own, so that an interrupted build leaves neither a process nor a mount."""


def build_ours(cache: Cache, environment: Mapping[str, str]) -> dict[str, str]:
    """Builds `server` and `operator` out of the working tree; returns image -> key of what it is built from."""
    if not environment.get("BASE_IMAGE"):
        build_base(cache)
    wanted = [recipes.ours(target, environment, BASE_IMAGE) for target in recipes.OURS]
    keys = {recipe.image: recipe.key() for recipe in wanted}
    built = [build(cache, recipe, environment) for recipe in wanted]
    if any(built):
        prune(cache)
    return keys


def build_pause(cache: Cache) -> None:
    program = cache.tools / "pause" / "pause"
    source = HERE / "images/pause/main.go"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(parents=True, exist_ok=True)
        command = ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", str(program), str(source)]
        run(command, env={**os.environ, "CGO_ENABLED": "0"})
    build(cache, recipes.pause(PAUSE_IMAGE, program), {})


def build_prometheus(cache: Cache) -> str:
    programs = {name: binary(cache, "prometheus-operator", name) for name in ("operator", "prometheus-config-reloader")}
    programs["prometheus"] = binary(cache, "prometheus", "prometheus")
    empty = HERE / "images" / ".keep"
    build(cache, recipes.prometheus(programs, empty), {})
    return recipes.PROMETHEUS_IMAGE


def build_base(cache: Cache) -> None:
    """Debian's python as an image, for machines that reach no image registry."""
    if exists(cache, BASE_IMAGE):
        return
    started = time.monotonic()
    with _locked(cache), tempfile.TemporaryDirectory(dir=_made(cache.contexts)) as folder:
        if exists(cache, BASE_IMAGE):
            return
        root = Path(folder, "root")
        command = [*CONTAINED, "debootstrap", "--variant=minbase", f"--include={DEBIAN_PACKAGES}", DEBIAN, str(root)]
        run_long("base image: debootstrap", command, log=cache.logs / "base.log")
        shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
        shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)
        context = _made(Path(folder, "context"))
        with step("base image: import"):
            run(["tar", "--numeric-owner", "--one-file-system", "-C", str(root), "-cf", str(context / "base.tar"), "."])
            dockerfile = HERE / "images/base.Dockerfile"
            run([*CONTAINED, *buildah(cache), "build", "--file", str(dockerfile), "--tag", BASE_IMAGE, str(context)])
    record_seconds(cache, "image base", time.monotonic() - started)


def build(cache: Cache, recipe: Recipe, environment: Mapping[str, str]) -> bool:
    """Builds the image unless the one in the storage was built from the same things; True if it built."""
    key = recipe.key()
    if exists(cache, recipe.image, key):
        return False
    started = time.monotonic()
    name = recipe.image.rpartition("/")[2]
    with _locked(cache), tempfile.TemporaryDirectory(dir=_made(cache.contexts)) as folder:
        stage_context(recipe, Path(folder))
        command = [
            *CONTAINED,
            *buildah(cache),
            "build",
            "--force-rm",
            "--layers",
            "--network",
            "host",
            "--label",
            f"{KEY}={key}",
        ]
        # The build sees this machine's certificates; they are not part of the image.
        command += ["--volume", "/etc/ssl/certs:/etc/ssl/certs:ro"]
        command += ["--file", str(recipe.dockerfile), "--tag", recipe.image]
        command += ["--target", recipe.target] if recipe.target else []
        for argument, value in recipe.arguments.items():
            command += ["--build-arg", f"{argument}={value}"]
        log = cache.logs / f"image-{name.partition(':')[0]}.log"
        run_long(f"building image {name}", [*command, folder], log=log, env=_environment(cache, environment))
    record_seconds(cache, f"image {name.partition(':')[0]}", time.monotonic() - started)
    return True


KEY = "chattts.dev/key"


def exists(cache: Cache, image: str, key: str | None = None) -> bool:
    """With a key: the image that was built from exactly that. Reads only: it does not wait for a running build."""
    try:
        stored = layers.read_image(cache.storage, image)
    except ClusterError:
        return False
    return key is None or stored.labels.get(KEY) == key


def prune(cache: Cache) -> None:
    """Removes what older builds have left, some of it large; layers that a tagged image stands on stay."""
    with step("removing old layers"), _locked(cache):
        for command in (("rm", "--all"), ("rmi", "--prune")):
            try:
                run([*buildah(cache), *command])
            except CommandError as problem:  # what a killed build held on to; it costs disk, nothing else
                say(f"some old layers stay: {problem.stderr.strip().splitlines()[-1]}")


def push(cache: Cache, image: str, target: str) -> None:
    log = cache.logs / "push.log"
    run_long(f"pushing {target}", [*buildah(cache), "push", image, f"docker://{target}"], log=log)


def buildah(cache: Cache) -> list[str]:
    # skip_mount_home: else buildah leaves a mount on its storage behind.
    options = ["--storage-driver", "overlay", "--storage-opt", "overlay.skip_mount_home=true"]
    places = ["--root", str(_made(cache.storage)), "--runroot", str(_made(cache.root / "storage-run"))]
    return ["buildah", *places, *options]


def stage_context(recipe: Recipe, folder: Path) -> None:
    """Only what the recipe names, with ordinary rights whatever the umask of the checkout was."""
    for name, source in recipe.files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o755 if os.access(source, os.X_OK) and source.suffix == "" else 0o644)


def uv_cache(environment: Mapping[str, str]) -> Path:
    """uv's own cache of this user: wheels that `make setup` has fetched are not fetched again."""
    if environment.get("UV_CACHE_DIR"):
        return Path(environment["UV_CACHE_DIR"])
    base = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or Path.home()) / ".cache"
    return Path(base) / "uv"


def _environment(cache: Cache, environment: Mapping[str, str]) -> dict[str, str]:
    """buildah keeps what `RUN --mount=type=cache,id=X` mounts in $TMPDIR/buildah-cache/X."""
    temporary = _made(cache.root / "tmp")
    link, wheels = _made(temporary / "buildah-cache") / "uv", _made(uv_cache({**os.environ, **environment}))
    if not link.is_symlink() or link.resolve() != wheels.resolve():
        link.unlink(missing_ok=True)
        link.symlink_to(wheels)
    return {**os.environ, "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(temporary)}


@contextmanager
def _locked(cache: Cache) -> Iterator[None]:
    """One build at a time, over all checkouts of this user."""
    with (_made(cache.root) / "build.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for a build of another checkout")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
