"""Copies equal their sources, and the generator says so when they do not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.chart.conftest import CHART, ROOT


def check(root: Path, helm: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "charts" / "generate.py"), *arguments]
    environment = {"HELM": str(helm), "HOME": str(root)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_generated_files_are_up_to_date(helm_binary: Path) -> None:
    done = check(ROOT, helm_binary, "--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_change_of_a_source_is_noticed_and_healed(helm_binary: Path, tmp_path: Path) -> None:
    for folder in ("charts", "manifests"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "crd.md", tmp_path / "docs")
    crd = tmp_path / "manifests" / "crd.yaml"
    crd.write_text(crd.read_text(encoding="utf-8").replace("shortNames: [tts]", "shortNames: [ttsx]"), encoding="utf-8")
    values = tmp_path / "charts" / "chattts-operator" / "values.yaml"
    values.write_text(values.read_text(encoding="utf-8").replace("replicas: 1\n", "replicas: 2\n"), encoding="utf-8")
    stale = check(tmp_path, helm_binary, "--check")
    assert stale.returncode == 1
    assert "make generate" in stale.stderr
    assert check(tmp_path, helm_binary).returncode == 0
    assert check(tmp_path, helm_binary, "--check").returncode == 0
    assert "ttsx" in (tmp_path / "manifests" / "install.yaml").read_text(encoding="utf-8")
    readme = (tmp_path / "charts" / "chattts-operator" / "README.md").read_text(encoding="utf-8")
    assert "| `replicas` | `2` |" in readme
    assert "short name `ttsx`" in (tmp_path / "docs" / "crd.md").read_text(encoding="utf-8")


def test_without_helm_one_line_says_what_to_do(tmp_path: Path, generator: ModuleType) -> None:
    with pytest.raises(generator.NoHelm, match="run `make cluster`"):
        generator.find_helm({"XDG_CACHE_HOME": str(tmp_path), "PATH": ""})
    with pytest.raises(generator.NoHelm, match="HELM=/none is not a program"):
        generator.find_helm({"HELM": "/none"})


def test_every_value_has_a_text_and_a_schema(generator: ModuleType) -> None:
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    documented = {path: description for path, _, description in generator.values(text)}
    schema = yaml.safe_load((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert set(documented) == set(_leaves(schema)) - {"global"}
    assert all(description.rstrip().endswith((".", "`")) for description in documented.values())


def test_a_value_without_a_text_is_refused(generator: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"a\.c has no"):
        list(generator.values("a:\n  # -- B.\n  b: 1\n  c: 2\n"))


def test_every_value_is_used_by_a_template() -> None:
    """A value that no template reads would be a promise that nobody keeps."""
    templates = "".join(path.read_text(encoding="utf-8") for path in (CHART / "templates").rglob("*") if path.is_file())
    schema = yaml.safe_load((CHART / "values.schema.json").read_text(encoding="utf-8"))
    unused = [leaf for leaf in _leaves(schema) if leaf != "global" and not re.search(rf"\.Values\.{leaf}\b", templates)]
    assert unused == []


def test_install_yaml_is_the_whole_thing_without_helm() -> None:
    text = (ROOT / "manifests" / "install.yaml").read_text(encoding="utf-8")
    objects = list(yaml.safe_load_all(text))
    assert objects[0]["kind"] == "Namespace"  # kubectl applies in this order
    assert {"CustomResourceDefinition", "Deployment", "ServiceAccount"} <= {o["kind"] for o in objects}
    assert "Pod" not in {o["kind"] for o in objects}
    assert "helm" not in re.sub(r"without Helm", "", text, flags=re.IGNORECASE).lower()
    images = re.findall(r"registry\.example\.com/speech/([a-z-]+):", text)
    assert sorted(images) == ["chattts-operator", "chattts-server"]


def _leaves(schema: dict[str, Any], prefix: str = "") -> list[str]:
    """Paths of the schema that hold a value of their own: no fixed properties below, or documented as a whole."""
    found: list[str] = []
    for name, child in schema["properties"].items():
        path = f"{prefix}{name}"
        found += [path] if "properties" not in child or path == "resources" else _leaves(child, f"{path}.")
    return found
