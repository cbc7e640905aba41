"""The look that tells whether a cluster left something behind."""

import shutil
import subprocess
from pathlib import Path

import pytest

from dev import leftovers


def test_two_looks_agree_when_nothing_happened() -> None:
    assert leftovers.seen() - leftovers.seen() == frozenset()


@pytest.mark.skipif(
    Path("/proc/self").stat().st_uid != 0 or shutil.which("unshare") is None, reason="needs root and unshare"
)
def test_a_process_of_another_namespace_and_its_mounts_are_seen() -> None:
    before = leftovers.seen()
    command = ["unshare", "--pid", "--fork", "--kill-child", "sleep", "30"]
    with subprocess.Popen(command) as process:
        try:
            while not (new := [line for line in leftovers.seen() - before if line.endswith("sleep")]):
                assert process.poll() is None
            assert new[0].startswith("process ")
        finally:
            process.kill()
