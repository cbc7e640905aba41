"""Compiles the decode step's kernels (server/chattts_server/engine/kernels) when the package is built or installed.

Without a C++ compiler, or on another processor than x86-64, the package is built without them: the engine then
computes by torch, and says so. `python hatch_build.py` compiles them in place.
"""

import os
import platform
import runpy
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path(__file__).parent / "server" / "chattts_server" / "engine" / "kernels"
SOURCES: dict[str, Any] = runpy.run_path(str(FOLDER / "sources.py"))  # without its package: torch may not be there


class CannotCompile(Exception):
    """Says why, in a line."""


class Kernels(BuildHookInterface[Any]):
    """hatchling's hook: the library goes into the wheel, which then is one for this platform."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        try:
            library = build(os.environ.get("CXX", "g++"))
        except CannotCompile as error:
            print(
                f"WITHOUT the CPU kernels: {error}. The engine computes by torch, 2 to 3 times slower.", file=sys.stderr
            )
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{platform.machine()}"
        build_data["artifacts"].append(f"/{library.relative_to(Path(self.root))}")


def build(compiler: str, folder: Path = FOLDER) -> Path:
    """The library, compiled if it is not there yet; older ones are removed. Raises CannotCompile."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise CannotCompile(f"they are for Linux on x86-64, not {platform.system()} on {platform.machine()}")
    if shutil.which(compiler) is None:
        raise CannotCompile(f"there is no {compiler} (Debian's package: g++; CXX names another compiler)")
    name: str = SOURCES["library_name"]()
    library = folder / name
    if not library.exists():
        try:
            _compile(compiler, library)
        except subprocess.CalledProcessError as error:
            raise CannotCompile(f"{compiler} failed: {error.stderr}") from error
    for other in folder.glob("*.so"):
        if other != library:
            other.unlink()
    return library


def _compile(compiler: str, library: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:

        def run(*arguments: str | Path) -> None:
            subprocess.run([compiler, *map(str, arguments)], check=True, capture_output=True, text=True)

        def compiled(name: str, source: str, *flags: str) -> Path:
            made = Path(folder) / f"{name}.o"
            run(*SOURCES["FLAGS"], *flags, "-c", FOLDER / source, "-o", made)
            return made

        variants = [
            pool.submit(compiled, name, "variant.cpp", f"-DVARIANT={name}", *flags)
            for name, flags in SOURCES["VARIANTS"].items()
        ]
        objects = [compiled("library", "library.cpp"), *(variant.result() for variant in variants)]
        made = Path(folder) / library.name
        run("-shared", "-o", made, *objects)
        shutil.copy(made, library.with_suffix(".tmp"))
        library.with_suffix(".tmp").replace(library)


if __name__ == "__main__":
    print(build(os.environ.get("CXX", "g++")))
