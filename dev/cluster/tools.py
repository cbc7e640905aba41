"""Go programs built once into the cache, keyed by go.sum. It does not know what they are used for."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dev.cluster.errors import ClusterError
from dev.cluster.paths import HERE, Cache
from dev.cluster.progress import run, run_long, say

SMALL = "-s -w"


@dataclass(frozen=True, slots=True)
class Tool:
    """One folder under dev/cluster/tools: a go.mod with nothing but `tool` lines and what they need."""

    name: str
    programs: tuple[str, ...]
    minutes: float
    """How long it takes on two cores with empty Go caches; only shown."""
    packages: tuple[str, ...] = ()
    """Go packages to build; empty = `.`, a main package in the folder itself."""
    ldflags: str = SMALL
    tags: str = ""
    copies: tuple[tuple[str, str, str], ...] = ()
    """(module, folder or file in it, name under share/): manifests that come with the module."""


KUBERNETES_VERSION = "v1.34.4"
KUBERNETES_PROGRAMS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
)
OPERATOR_MODULE = "github.com/prometheus-operator/prometheus-operator"

TOOLS = (
    Tool("etcd", ("server",), 1.5, packages=("go.etcd.io/etcd/server/v3",), ldflags=""),
    Tool(
        "kubernetes",
        KUBERNETES_PROGRAMS,
        7.5,
        packages=tuple(f"k8s.io/kubernetes/cmd/{name}" for name in KUBERNETES_PROGRAMS),
        ldflags=f"{SMALL} -X k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION}",
    ),
    Tool("helm", ("helm",), 3, packages=("helm.sh/helm/v4/cmd/helm",)),
    Tool(
        "prometheus-operator",
        ("operator", "prometheus-config-reloader"),
        2.5,
        packages=(f"{OPERATOR_MODULE}/cmd/operator", f"{OPERATOR_MODULE}/cmd/prometheus-config-reloader"),
        copies=((OPERATOR_MODULE, "example/prometheus-operator-crd", "crds"),),
    ),
    Tool(
        "prometheus",
        ("prometheus", "promtool"),
        5,
        packages=tuple(f"github.com/prometheus/prometheus/cmd/{name}" for name in ("prometheus", "promtool")),
    ),
    # Its main package lies beside its go.mod.
    Tool("coredns", ("coredns",), 1),
)


def build_tools(cache: Cache, names: Iterable[str] = ()) -> None:
    """Builds what is missing (all tools, or those named)."""
    wanted = set(names) or {tool.name for tool in TOOLS}
    missing = [tool for tool in TOOLS if tool.name in wanted and not is_built(tool, cache)]
    if not missing:
        return
    if shutil.which("go") is None:
        raise ClusterError("`go` (1.26 or newer) is not on PATH: install it from your system or from go.dev/dl")
    minutes = sum(tool.minutes for tool in missing)
    say(f"building {', '.join(t.name for t in missing)}: once, about {minutes:.0f} minutes on two cores")
    for number, tool in enumerate(missing, 1):
        seconds = _build(tool, cache, f"building {tool.name} ({number} of {len(missing)})")
        record_seconds(cache, f"tool {tool.name}", seconds)


def is_built(tool: Tool, cache: Cache) -> bool:
    folder = tool_folder(tool, cache)
    programs = all((folder / "bin" / name).exists() for name in tool.programs)
    return programs and all((folder / "share" / name).exists() for _, _, name in tool.copies)


def tool_folder(tool: Tool, cache: Cache) -> Path:
    return cache.tools / f"{tool.name}-{tool_key(HERE / 'tools' / tool.name)}"


def tool_key(folder: Path) -> str:
    """go.sum names every dependency's version and content, so it names the result.

    A main package of our own beside it is part of the result as well.
    """
    digest = hashlib.sha256((folder / "go.sum").read_bytes())
    for source in sorted(folder.glob("*.go")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def built(tool_name: str, program: str) -> Path:
    """A program of this user's cache; ClusterError says how to build it when it is not there."""
    path = binary(Cache.from_environment(os.environ), tool_name, program)
    if not path.exists():
        raise ClusterError(f"{path.name} is not built yet: `python -m dev.cluster tools` builds it")
    return path


def binary(cache: Cache, tool_name: str, program: str) -> Path:
    tool = next(tool for tool in TOOLS if tool.name == tool_name)
    return tool_folder(tool, cache) / "bin" / program


def share(cache: Cache, tool_name: str, name: str) -> Path:
    tool = next(tool for tool in TOOLS if tool.name == tool_name)
    return tool_folder(tool, cache) / "share" / name


def record_seconds(cache: Cache, what: str, seconds: float) -> None:
    recorded = recorded_seconds(cache)
    recorded[what] = round(seconds, 1)
    cache.build_seconds.parent.mkdir(parents=True, exist_ok=True)
    cache.build_seconds.write_text(json.dumps(recorded, indent=1) + "\n")


def recorded_builds() -> dict[str, float]:
    """Seconds that the last build of each tool and image took, by name: what changed was built in between."""
    recorded = recorded_seconds(Cache.from_environment(os.environ))
    return {what: took for what, took in recorded.items() if what.startswith(("tool ", "image "))}


def recorded_seconds(cache: Cache) -> dict[str, float]:
    if not cache.build_seconds.exists():
        return {}
    recorded: dict[str, float] = json.loads(cache.build_seconds.read_text())
    return recorded


def _build(tool: Tool, cache: Cache, title: str) -> float:
    source, folder = HERE / "tools" / tool.name, tool_folder(tool, cache)
    environment = {**os.environ, "CGO_ENABLED": "0"}
    seconds = 0.0
    if not all((folder / "bin" / name).exists() for name in tool.programs):
        # Built beside and renamed: an interrupted build leaves no half of a tool.
        staging = folder / "bin.new"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        flags = ["-trimpath", f"-ldflags={tool.ldflags}", *([f"-tags={tool.tags}"] if tool.tags else [])]
        command = ["go", "build", *flags, "-o", f"{staging}/", *(tool.packages or (".",))]
        seconds = run_long(title, command, log=cache.logs / f"{tool.name}.log", cwd=source, env=environment)
        shutil.rmtree(folder / "bin", ignore_errors=True)
        staging.rename(folder / "bin")
    for module, inside, name in tool.copies:
        _copy_from_module(source, module, inside, folder / "share" / name)
    return seconds


def _copy_from_module(source: Path, module: str, inside: str, target: Path) -> None:
    run(["go", "mod", "download", module], cwd=source)
    found = Path(run(["go", "list", "-m", "-f", "{{.Dir}}", module], cwd=source).strip()) / inside
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(found, target, copy_function=shutil.copyfile)
