"""R19, the long form: atheris on what strangers may send. The corpus is the written cases; each run takes a minute."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CASES = ROOT / "tests" / "server" / "text_cases.tsv"
SECONDS = int(os.environ.get("FUZZ_SECONDS", "60"))


def fuzz(target, corpus, seconds=SECONDS):
    command = [sys.executable, str(HERE / target), f"-max_total_time={seconds}", "-timeout=10", "-max_len=8192", corpus]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "server"), str(ROOT)])}
    return subprocess.run(
        [str(word) for word in command],
        env=environment,
        cwd=corpus,
        capture_output=True,
        text=True,
        timeout=seconds + 120,
    )


@pytest.fixture
def corpus(tmp_path):
    for number, line in enumerate(CASES.read_text(encoding="utf-8").splitlines()[1:]):
        (tmp_path / str(number)).write_text("0" + line.split("\t")[0], encoding="utf-8")
    return tmp_path


def test_r19_the_normaliser_and_the_splitter_hold_for_any_text(corpus):
    run = fuzz("normalizer_target.py", corpus)
    assert run.returncode == 0, run.stderr[-4000:]
    done = re.search(r"Done (\d+) runs", run.stderr)
    assert done is not None
    assert int(done[1]) > 100 * SECONDS
    print(f"{done[1]} texts in {SECONDS} s")
