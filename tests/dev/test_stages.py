"""The stage runner: a failing stage fails the run, and what was skipped is said."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dev import stages


def run(code: str) -> stages.Outcome:
    return stages._run(stages.Stage("try", ("all",), (sys.executable, "-c", code), budget=5))


def test_a_failing_command_is_an_outcome_with_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = [run("print('3 passed in 1s')"), run("raise SystemExit(3)")]
    assert [outcome.status for outcome in outcomes] == [0, 3]
    stages._report(outcomes)
    assert "stages: 1 passed, 1 failed" in capsys.readouterr().out


def test_skips_are_collected_with_their_reason() -> None:
    assert run("print('SKIPPED [1] t.py:3: no GPU here')").skipped == ("SKIPPED [1] t.py:3: no GPU here",)


def test_the_long_forms_leave_a_dated_report_with_their_last_lines(tmp_path: Path) -> None:
    stages._write_report(
        [run("print('0 writes in 300 s'); print('1 passed in 300s')")], datetime(2026, 1, 2, tzinfo=UTC), tmp_path
    )
    text = (tmp_path / "2026-01-02-test-long.md").read_text()
    assert "| try | ok |" in text
    assert "0 writes in 300 s" in text


def test_an_unknown_group_is_refused() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "dev.stages", "nonsense"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "invalid choice" in ended.stderr
