"""R19: the decoder of voice strings, fuzzed for a minute from good strings on."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 60


def seeds() -> list[bytes]:
    """What `as_string` turns into good voices, so that the fuzzer begins behind the first checks."""
    halves = np.random.default_rng(1).normal(size=768).astype("<f2").tobytes()
    codes = np.random.default_rng(2).integers(0, 625, (4, 60)).astype("<u2").tobytes()
    return [b"\x04" + halves, b"\x05" + codes, b"\x00" + "clone:aGk:一丁".encode(), b"\x01\x4e\x00\x3d\x01", b"\x02ab"]


@pytest.mark.long
def test_r19_a_minute_of_fuzzing_finds_nothing(tmp_path):
    corpus, found = tmp_path / "corpus", tmp_path / "found"
    corpus.mkdir()
    found.mkdir()
    for number, seed in enumerate(seeds()):
        (corpus / str(number)).write_bytes(seed)
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.fuzz_speaker_strings", str(corpus), f"-max_total_time={SECONDS}",
         "-max_len=8192", "-report_slow_units=100", f"-artifact_prefix={found}/"],
        cwd=ROOT, env={"PYTHONPATH": f"{ROOT / 'server'}:{ROOT}"}, capture_output=True, text=True, timeout=SECONDS * 5,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert list(found.iterdir()) == []  # a file per input that ended it
    runs = next(line for line in ended.stderr.splitlines() if line.startswith("Done "))
    print(runs)
    assert int(runs.split()[1]) > 5000
    assert len(list(corpus.iterdir())) > len(seeds())  # new paths were found: the decoder was really inside
