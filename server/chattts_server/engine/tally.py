"""What the loop did since the last report. Knows the clock and one message."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

from chattts_server.engine.nouns import STEPS_PER_SECOND, StepReport

REPORT_SECONDS = 0.25  # of work between two reports


class Tally:
    def __init__(
        self,
        send: Callable[[StepReport], None],
        clock: Callable[[], float],
        device_memory: Callable[[], dict[str, int]],
    ) -> None:
        self._send = send
        self._clock = clock
        self._device_memory = device_memory
        self._clear()

    def step(self, rows: int, seconds: float) -> None:
        self._steps += 1
        self._row_steps += rows
        self._step_seconds += seconds

    def turn(self, busy_seconds: float, waiting_rows: int, final: bool) -> None:
        """After each turn of the loop; `final`: nothing is left to do, so what there is is reported now."""
        self._busy_seconds += busy_seconds
        if self._busy_seconds == 0.0 or (self._busy_seconds < REPORT_SECONDS and not final):
            return
        self._send(
            StepReport(
                rows=round(self._row_steps / self._steps) if self._steps else 0,
                steps=self._steps,
                step_seconds=self._step_seconds,
                busy_seconds=self._busy_seconds,
                audio_seconds=self._row_steps / STEPS_PER_SECOND,
                waiting_rows=waiting_rows,
                memory_bytes={"resident": _resident_bytes(), **self._device_memory()},
            )
        )
        self._clear()

    def _clear(self) -> None:
        self._steps = self._row_steps = 0
        self._step_seconds = self._busy_seconds = 0.0


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
