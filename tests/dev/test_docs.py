"""Documents that are kept true: every file that they name exists, and the README's tree names every package file."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`((?:server|operator|charts|manifests|bench|dev|docs|tests)/[\w./-]+)`")
LINKED = re.compile(r"\]\((?!http)([^)#]+)\)")


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/api.md", "docs/voices.md", "docs/keys.md"]
)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    named = NAMED.findall(text)
    linked = [str((ROOT / page).parent.joinpath(link).resolve().relative_to(ROOT)) for link in LINKED.findall(text)]
    missing = [path for path in [*named, *linked] if not (ROOT / path).exists()]
    assert missing == []


def test_the_readmes_tree_is_that_of_the_files() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "dev.tree", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_every_make_target_is_explained() -> None:
    text = (ROOT / "Makefile").read_text()
    declared = set(re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)[1].split())  # type: ignore[index]
    explained = set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))
    assert declared == explained
