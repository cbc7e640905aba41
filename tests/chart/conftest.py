"""The chart by a real Helm. Without one the tests fail and say how to get it: they are never skipped."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "chattts-operator"

Object = dict[str, Any]
Render = Callable[..., list[Object]]


class HelmFailed(AssertionError):
    """Helm refused; the text is what a user would read."""


class Helm:
    """Helm as a program, never with a cluster."""

    def __init__(self, binary: Path, home: Path) -> None:
        self._binary = str(binary)
        # An empty home and no kubeconfig: nothing of the machine's own Helm or cluster gets in.
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": str(home / "none")}

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            [self._binary, *arguments], capture_output=True, text=True, check=False, env=self._environment
        )
        if done.returncode:
            raise HelmFailed(done.stderr + done.stdout)
        return done.stdout

    def render(self, *flags: str, release: str = "chattts", namespace: str = "chattts-system") -> list[Object]:
        text = self("template", release, str(CHART), "--namespace", namespace, *flags)
        return [document for document in yaml.safe_load_all(text) if document]


def load_generator() -> ModuleType:
    """charts/generate.py, which is a program and in no package."""
    spec = importlib.util.spec_from_file_location("charts_generate", ROOT / "charts" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def generator() -> ModuleType:
    return load_generator()


@pytest.fixture(scope="session")
def helm_binary(generator: ModuleType) -> Path:
    found: Path = generator.find_helm(os.environ)
    return found


@pytest.fixture(scope="session")
def helm(helm_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(helm_binary, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def default(helm: Helm) -> list[Object]:
    """The chart as it is, no value set."""
    return helm.render()
