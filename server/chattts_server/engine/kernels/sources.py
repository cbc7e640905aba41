"""How the sources in this folder are compiled, and which library is theirs.

hatch_build.py runs it without its package.
"""

import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent
WIDE = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512")
VNNI, HALVES = (*WIDE, "-mavx512vnni"), (*WIDE, "-mavx512vnni", "-mavx512bf16")
VARIANTS = {
    "avx2": ("-mavx2", "-mfma"),
    "avx512": WIDE,
    "avx512_vnni": VNNI,
    "avx512_bf16": HALVES,
    "amx": (*HALVES, "-mamx-tile", "-mamx-bf16", "-mamx-int8"),
}
# -fopenmp leaves the names of OpenMP open where it only compiles: torch's own library fills them (kernels/__init__.py).
# No -ffast-math: what is not a number must stay none.
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fPIC", "-fopenmp", "-Wall", "-Wno-psabi")


def library_name() -> str:
    """With a digest of the sources and flags: a library of other ones is never loaded."""
    digest = hashlib.sha256()
    for source in sorted([*FOLDER.glob("*.hpp"), *FOLDER.glob("*.cpp"), Path(__file__)]):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return f"kernels-{digest.hexdigest()[:16]}.so"
