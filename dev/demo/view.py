"""What the demo shows while it runs: a live table on a terminal, plain lines elsewhere (logs, CI)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from dev.demo.summary import SLO_SECONDS
from dev.demo.watch import Sample, Watcher

PLAIN_LINE_EVERY_SECONDS = 15.0


class View:
    """The phases with their times and, once a watcher is set, the service's newest numbers."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self.watcher: Watcher | None = None
        self._phases: list[tuple[str, float, float | None]] = []
        self._started = self._printed = time.monotonic()
        self._live = (
            Live(self, console=self.console, refresh_per_second=2, transient=False)
            if self.console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def __rich__(self) -> Group:
        return Group(self._table(), self._numbers())

    @contextmanager
    def phase(self, what: str) -> Iterator[None]:
        """Show that `what` runs until the block ends."""
        started = time.monotonic()
        self._phases.append((what, started, None))
        if not self._live:
            self.console.print(f"[{started - self._started:6.0f} s] {what}", markup=False)
        yield
        self._phases[-1] = (what, started, time.monotonic())

    def say(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, markup=False, highlight=False)

    def tick(self) -> None:
        """Called while waiting: prints the newest numbers every 15 s where there is no live table."""
        if not self._live and time.monotonic() - self._printed >= PLAIN_LINE_EVERY_SECONDS:
            self._printed = time.monotonic()
            self.console.print(self._numbers())

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for what, started, ended in self._phases:
            mark = Text("✓", style="green") if ended else Spinner("dots")
            table.add_row(mark, what, f"{(ended or time.monotonic()) - started:.0f} s")
        return table

    def _numbers(self) -> Text:
        sample = self.watcher.samples[-1] if self.watcher and self.watcher.samples else None
        return Text("") if sample is None else Text(describe(sample))


def describe(sample: Sample) -> str:
    """One line of the newest numbers; what is unknown is shown as a dash."""

    def shown(value: float | None, unit: str) -> str:
        return "-" if value is None else f"{value:.2f}{unit}"

    late = " (over the SLO)" if sample.p99 is not None and sample.p99 > SLO_SECONDS else ""
    replicas = f"{'-' if sample.ready is None else sample.ready}/{'-' if sample.replicas is None else sample.replicas}"
    rates = f"offered {shown(sample.offered, '/s')}  refused {shown(sample.refused, '/s')}"
    p99 = f"p99 {shown(sample.p99, ' s')}{late}"
    return f"   replicas {replicas}  {p99}  {rates}  {sample.reason} {sample.message}".rstrip()
