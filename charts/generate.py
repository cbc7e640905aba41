"""Makes the files that are copies of something else, or compares them (`--check`). Knows Helm only as a program.

charts/chattts-operator/files/crd.yaml    from manifests/crd.yaml, the one source of the CRD
docs/crd.md                               from manifests/crd.yaml
charts/chattts-operator/README.md         its table of values, from the `# --` texts of values.yaml
manifests/install.yaml                    from `helm template`
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "charts"))  # also where this file was loaded by its path
from crd_docs import crd_page  # noqa: E402

CHART = ROOT / "charts" / "chattts-operator"
CRD = ROOT / "manifests" / "crd.yaml"
NAMESPACE = "chattts-system"
REGISTRY = "registry.example.com/speech"
TABLE = re.compile(r"(<!-- values: .*? -->\n).*?(<!-- end of values -->)", re.DOTALL)

INSTALL_HEADER = f"""\
# The operator without Helm; made by charts/generate.py from the chart, do not edit.
# No image is published. Build both, push them, and put your registry in:
#   make images REGISTRY=my.registry/path
#   sed 's#{REGISTRY}#my.registry/path#' manifests/install.yaml | kubectl apply --server-side -f -
# Scaling needs the address of your Prometheus in CHATTTS_OPERATOR_PROMETHEUS_URL (Deployment chattts-operator).
---
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: restricted
"""


class NoHelm(RuntimeError):
    """There is no Helm to run; the text says how to get one."""


def find_helm(environ: Mapping[str, str]) -> Path:
    """$HELM, else the newest of those that `make cluster` built, else the one on PATH."""
    if chosen := environ.get("HELM"):
        if not shutil.which(chosen):
            raise NoHelm(f"HELM={chosen} is not a program")
        return Path(chosen)
    cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chattts-k8s" / "tools"
    built = sorted(cache.glob("helm-*/bin/helm"), key=lambda path: path.stat().st_mtime)
    if built:
        return built[-1]
    if on_path := shutil.which("helm", path=environ.get("PATH")):
        return Path(on_path)
    raise NoHelm(f"no Helm in {cache}: run `make cluster` (it builds one), or set HELM=/path/to/helm")


def generated(helm: Path) -> Iterator[tuple[Path, str]]:
    """Each file with the text it should have."""
    yield CHART / "files" / "crd.yaml", CRD.read_text(encoding="utf-8")
    yield ROOT / "docs" / "crd.md", crd_page(CRD.read_text(encoding="utf-8"))
    yield CHART / "README.md", readme((CHART / "README.md").read_text(encoding="utf-8"))
    yield ROOT / "manifests" / "install.yaml", install(helm)


def same(path: Path, old: str, new: str) -> bool:
    """Equal text; for what Helm renders equal objects, as Helm 3 and 4 break lines differently."""
    if path.name != "install.yaml":
        return old == new
    return list(yaml.safe_load_all(old)) == list(yaml.safe_load_all(new))


def readme(text: str) -> str:
    """The README with a fresh table of values."""
    rows = [
        f"| `{path}` | `{default}` | {description} |"
        for path, default, description in values((CHART / "values.yaml").read_text(encoding="utf-8"))
    ]
    table = "\n".join(["| Value | Default | Meaning |", "|---|---|---|", *rows]) + "\n"
    text, found = TABLE.subn(lambda match: match[1] + table + match[2], text)
    if found != 1:
        raise ValueError("README.md must contain the two values comments once")
    return text


def values(text: str) -> Iterator[tuple[str, str, str]]:
    """(path, default, description) of each value that has a `# --` text; raises ValueError for one that has none."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert root is not None
    yield from _values(root, text.splitlines(), "")


def _values(node: yaml.Node, lines: list[str], prefix: str) -> Iterator[tuple[str, str, str]]:
    assert isinstance(node, yaml.MappingNode)
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        description = _comment_above(lines, key.start_mark.line)
        if description:
            yield path, json.dumps(_plain(value)), description.replace("|", "\\|")
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from _values(value, lines, f"{path}.")
        else:
            raise ValueError(f"values.yaml: {path} has no `# --` text above it")


def _comment_above(lines: list[str], line: int) -> str:
    """The `# --` text that ends on the line before; empty when there is none."""
    words: list[str] = []
    while line > 0 and (comment := lines[line - 1].strip()).startswith("#"):
        line -= 1
        words.insert(0, comment.removeprefix("# -- ").removeprefix("#").strip())
        if comment.startswith("# -- "):
            return " ".join(words)
    return ""


def _plain(node: yaml.Node) -> object:
    loader = yaml.SafeLoader("")
    return loader.construct_object(node, deep=True)


def install(helm: Path) -> str:
    """The chart's objects as Helm would make them, without what only Helm understands."""
    settings = {
        "image.repository": f"{REGISTRY}/chattts-operator",
        "crds.keep": "false",  # an annotation for Helm alone
    }
    flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = [str(helm), "template", "chattts-operator", str(CHART), "--namespace", NAMESPACE, "--no-hooks", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    kept = [line for line in done.stdout.splitlines() if not re.match(r"\s+helm\.sh/chart:|# Source:", line)]
    body = "\n".join(line.rstrip() for line in kept).replace("managed-by: Helm", "managed-by: kubectl")
    return INSTALL_HEADER + body.replace("\n\n---", "\n---").strip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="charts/generate.py", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file is out of date")
    check = parser.parse_args().check
    try:
        helm = find_helm(os.environ)
    except NoHelm as problem:
        sys.stderr.write(f"{problem}\n")
        return 2
    stale = 0
    for path, text in generated(helm):
        if path.exists() and same(path, path.read_text(encoding="utf-8"), text):
            continue
        stale += 1
        sys.stdout.write(f"{'out of date' if check else 'wrote'}: {path.relative_to(ROOT)}\n")
        if not check:  # each is written before the next is made: install.yaml renders the fresh CRD copy
            path.write_text(text, encoding="utf-8")
    if check and stale:
        sys.stderr.write("run `make generate`\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
