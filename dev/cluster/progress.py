"""Progress lines with elapsed time for everything that takes more than a few seconds. It does not know the steps."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from dev.cluster.errors import CommandError

STILL_RUNNING_EVERY = 20.0
"""Seconds between two lines about the same long command."""


def say(text: str) -> None:
    """One line on stderr: stdout belongs to what a command was asked to print (`env`)."""
    print(f"[cluster] {text}", file=sys.stderr, flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Prints the title before, and how long it took after. A failed step prints no time."""
    say(f"{title} ...")
    started = time.monotonic()
    yield
    say(f"{title}: {time.monotonic() - started:.1f} s")


def run(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> str:
    """Runs a short command and returns its stdout; raises CommandError with its stderr."""
    done = subprocess.run(command, cwd=cwd, env=env, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandError(command, done.returncode, done.stderr or done.stdout)
    return done.stdout


def run_long(
    title: str, command: Sequence[str], *, log: Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> float:
    """Runs a command of minutes, its output in `log`, with a line now and then. Returns the seconds."""
    started = shown = time.monotonic()
    say(f"{title} ... (output: {log})")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_dies_with_us(), *command],
            cwd=cwd,
            env=env,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                try:
                    process.wait(0.5)
                except subprocess.TimeoutExpired:
                    pass
                if time.monotonic() - shown >= STILL_RUNNING_EVERY:
                    shown = time.monotonic()
                    say(f"{title} ... {shown - started:.0f} s")
        except BaseException:  # Ctrl-C above all: the command's children end with it
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    seconds = time.monotonic() - started
    if process.returncode != 0:
        raise CommandError(command, process.returncode, log.read_text(errors="replace"))
    say(f"{title}: {seconds:.1f} s")
    return seconds


def _dies_with_us() -> list[str]:
    """Even if this process is killed and can clean up nothing (Linux only)."""
    return ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
