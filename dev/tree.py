"""The tree in README.md, made from the first sentence of every module; `--check` compares instead of writing."""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
SECTION = re.compile(r"(## The tree\n\n```\n).*?(\n```\n)", re.DOTALL)
FOLDERS = {
    "server/chattts_server": "the server",
    "operator/chattts_operator": "the operator",
    "bench": "load generator and capacity meter",
    "dev": "what developers run; nothing of it is shipped",
}
OTHER = {
    "charts/chattts-operator/": "the Helm chart; charts/generate.py makes its copies of other files",
    "manifests/": "crd.yaml is the source of the CRD; install.yaml, samples/, prometheus/",
    "tests/": "server/ operator/ chart/ promql/ bench/ cluster/ dev/ fuzz/ page/ packaging/, e2e/ on a real Kubernetes",
    "docs/": "architecture.md, voices.md, keys.md, adr/ (decisions), reports/ (dated runs), images/",
    "requirements/": "locks with hashes, one per extra",
    "Dockerfile": "targets `server` and `operator`",
    "Makefile, .ci/run": "every command that people and CI use",
}
WIDTH = 150


def main() -> int:
    """Write the section, or with --check say in one line that it is out of date."""
    text = README.read_text()
    new = SECTION.sub(lambda found: found[1] + tree() + found[2], text)
    if "--check" in sys.argv[1:]:
        if new != text:
            print("README.md: the tree is out of date; run make generate", file=sys.stderr)
        return int(new != text)
    README.write_text(new)
    return 0


def tree() -> str:
    """One line a file, grouped by folder."""
    lines: list[str] = []
    for folder, meaning in FOLDERS.items():
        lines += [f"{folder + '/':<30} {meaning}", *_files(ROOT / folder)]
    return "\n".join([*lines, *(f"{name:<30} {meaning}" for name, meaning in OTHER.items())])


def _files(folder: Path) -> list[str]:
    paths = [path for path in sorted(folder.rglob("*.py")) if path.name not in ("__init__.py",)]
    paths.sort(key=lambda path: (len(path.relative_to(folder).parts) > 1, path))
    return [_line(path.relative_to(folder), path) for path in paths]


def _line(name: Path, path: Path) -> str:
    text = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0].replace("\n", " ")
    sentence = re.split(r"(?<=[^.]{2}\.) (?=[A-Z`])", text)[0].rstrip(".")
    line = f"  {name!s:<28} {sentence}"
    return line if len(line) <= WIDTH else line[: WIDTH - 1].rstrip() + "…"


if __name__ == "__main__":
    sys.exit(main())
