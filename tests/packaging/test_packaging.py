"""The wheel holds both packages and nothing else; both start as modules; no file names this machine or a registry."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=True,
        capture_output=True,
    )
    return next(out.glob("*.whl"))


def test_the_wheel_holds_both_packages(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"chattts_server", "chattts_operator"}


@pytest.mark.parametrize("module", ["chattts_server", "chattts_operator"])
def test_each_package_starts_from_the_wheel_alone(wheel: Path, module: str, tmp_path: Path) -> None:
    code = f"""
import runpy, sys
sys.path.insert(0, {str(wheel)!r})
import {module}
assert ".whl" in {module}.__file__
sys.argv = ["{module}", "--help"]
runpy.run_module("{module}", run_name="__main__")
"""
    ended = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "usage:" in ended.stdout


@pytest.mark.parametrize("module", ["chattts_server", "chattts_operator"])
def test_each_package_starts_from_the_editable_install(module: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "usage:" in ended.stdout


def test_folders_that_would_shadow_the_standard_library_are_no_packages() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not (ROOT / "server" / "__init__.py").exists()


def test_no_tracked_file_names_this_machine_or_a_registry() -> None:
    hosts = "|".join(
        re.escape(host)
        for host in (
            "pythonhosted" + ".org",
            "pypi" + ".org",
            "proxy.golang" + ".org",
            "registry.npmjs" + ".org",
        )
    )
    found = subprocess.run(["git", "grep", "-nIE", hosts], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 1, f"registry hosts are named:\n{found.stdout}"


def test_locks_carry_hashes_and_no_index_address() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        settings = [line for line in lock.read_text().splitlines() if not line.lstrip().startswith("#")]
        assert any("--hash=sha256:" in line for line in settings), lock
        assert not [line for line in settings if "index-url" in line or "://" in line], lock
