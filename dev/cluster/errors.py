"""The errors a person can act on. `python -m dev.cluster` prints them as one line, without a traceback."""

from __future__ import annotations

from collections.abc import Sequence


class ClusterError(Exception):
    """Something is missing or did not start; the text says what to do."""


class CommandError(ClusterError):
    """A command ended with an error; `stderr` is what it said."""

    def __init__(self, command: Sequence[str], code: int, stderr: str) -> None:
        self.command, self.code, self.stderr = list(command), code, stderr
        super().__init__(f"{' '.join(command[:6])} ended with {code}: {stderr.strip()[-2000:]}")
