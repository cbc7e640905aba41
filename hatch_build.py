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

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # run by hand
    BuildHookInterface = object

FOLDER = Path(__file__).parent / "server" / "chattts_server" / "engine" / "kernels"
SOURCES = runpy.run_path(str(FOLDER / "sources.py"))  # torch may not be there, so the package cannot be imported


class Kernels(BuildHookInterface):  # type: ignore[misc]
    """hatchling's hook: the library goes into the wheel, which then is one for this platform."""

    PLUGIN_NAME = "custom"

    def initialize(
        self,
        version: str,  # noqa: ARG002
        build_data: dict[str, Any],
    ) -> None:
        if self.target_name != "wheel":
            return
        library = build()
        if library is not None:
            build_data["pure_python"] = False
            build_data["infer_tag"] = False
            build_data["tag"] = f"py3-none-{platform.system().lower()}_{platform.machine()}"
            build_data["artifacts"].append(f"/{library.relative_to(Path(self.root))}")


def build() -> Path | None:
    """The library, compiled if it is not there yet; None: not on this machine, and why is printed."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        return _without(f"they are for x86-64 and Linux, not {platform.machine()} and {platform.system()}")
    if compiler is None:
        return _without("there is no g++ (Debian: g++); CXX names another compiler")
    library = FOLDER / SOURCES["library_name"]()
    if not library.exists():
        try:
            _compile(compiler, library)
        except subprocess.CalledProcessError as error:
            return _without(f"the compiler failed:\n{error.stderr}")
    for other in FOLDER.glob("*.so"):
        if other != library:
            other.unlink()  # of older sources
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


def _without(why: str) -> None:
    print(f"WITHOUT the CPU kernels: {why}. The engine computes by torch, several times slower.", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(0 if build() else 1)
