"""`python -m dev.cluster up | down | shell | env | status | images | push | load | tools | clean-tools`."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version

from dev.cluster import docker, images, locks, recipes
from dev.cluster.cluster import Cluster, docker_works, engine_of
from dev.cluster.errors import ClusterError
from dev.cluster.packages import install_packages
from dev.cluster.paths import Cache
from dev.cluster.progress import say
from dev.cluster.tools import build_tools


def main(words: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(words)
    started = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        arguments.run(arguments)
    except ClusterError as problem:
        print(f"cluster: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cluster: interrupted", file=sys.stderr)
        return 130
    if arguments.timed:
        say(f"{arguments.command}: {time.monotonic() - started:.1f} s in all")
    return 0


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="python -m dev.cluster", description=__doc__)
    commands = result.add_subparsers(dest="command", required=True)

    up_ = commands.add_parser("up", help="start the cluster and load our images; nothing to do when it runs")
    up_.add_argument("--gpus", type=int, default=4, help="fake GPUs of the node")
    up_.add_argument("--no-images", action="store_true", help="leave our images alone")
    up_.add_argument("--prometheus", action="store_true", help="install Prometheus as well")
    up_.set_defaults(run=up, timed=True)
    for name, action, text in (
        ("down", down, "end it; no process, mount or cgroup stays"),
        ("images", build_images, "build both images"),
        ("tools", tools, "build the Go programs"),
        ("clean-tools", clean, "remove the shared cache: tools and images (running clusters must be down)"),
    ):
        commands.add_parser(name, help=text).set_defaults(run=action, timed=True)
    for name, action, text in (
        ("shell", shell, "a shell with kubectl, helm and KUBECONFIG"),
        ("env", env, "print exports for your own shell"),
        ("status", status, "what runs, as JSON"),
    ):
        commands.add_parser(name, help=text).set_defaults(run=action, timed=False)
    load_ = commands.add_parser("load", help="hand built images to the cluster")
    load_.add_argument("image", nargs="*", default=list(recipes.OURS.values()))
    load_.set_defaults(run=load, timed=True)
    push_ = commands.add_parser("push", help="build both images and push them to a registry")
    push_.add_argument("--registry", required=True, help="host/path")
    push_.add_argument("--tag", default=version("chattts-k8s"), help="default: the project's version")
    push_.set_defaults(run=push, timed=True)
    return result


def up(arguments: argparse.Namespace) -> None:
    cluster = Cluster.up(arguments.gpus, images=not arguments.no_images)
    if arguments.prometheus:
        cluster.install_prometheus()
    say('up. `make cluster-shell` opens a shell; in your own: eval "$(python -m dev.cluster env)"')


def down(_arguments: argparse.Namespace) -> None:
    engine_of(os.environ).down()


def build_images(_arguments: argparse.Namespace) -> None:
    for image in _build().values():
        say(f"built {image}")


def _build() -> dict[str, str]:
    cache = Cache.from_environment(os.environ)
    if docker_works():
        return docker.build(cache, os.environ)
    install_packages()
    images.build_ours(cache, os.environ)
    return dict(recipes.OURS)


def push(arguments: argparse.Namespace) -> None:
    send = docker.push if docker_works() else images.push
    cache = Cache.from_environment(os.environ)
    for target, image in _build().items():
        send(cache, image, f"{arguments.registry.rstrip('/')}/chattts-{target}:{arguments.tag}")


def load(arguments: argparse.Namespace) -> None:
    Cluster.current().load(*arguments.image)


def tools(_arguments: argparse.Namespace) -> None:
    build_tools(Cache.from_environment(os.environ))


def clean(_arguments: argparse.Namespace) -> None:
    cache = Cache.from_environment(os.environ)
    if not all(locks.is_free(lock) for lock in cache.slots.glob("*.lock")):
        raise ClusterError("a cluster of this or another checkout is up: take it down first")
    say(f"removing {cache.root}")
    shutil.rmtree(cache.root, ignore_errors=True)


def shell(_arguments: argparse.Namespace) -> None:
    environment = Cluster.current().environment()
    program = environment.get("SHELL", "/bin/sh")
    os.execvpe(program, [program], environment)


def env(_arguments: argparse.Namespace) -> None:
    environment = Cluster.current().environment()
    for name in ("KUBECONFIG", "PATH"):
        print(f"export {name}={shlex.quote(environment[name])}")


def status(_arguments: argparse.Namespace) -> None:
    print(json.dumps(engine_of(os.environ).status(), indent=1))


if __name__ == "__main__":
    sys.exit(main())
