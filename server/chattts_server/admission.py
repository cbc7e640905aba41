"""Who gets in: bounded by the predicted wait, audio seconds over learned throughput. Pure: no clock, no socket.

A bounded *count* would let in a minute of audio as easily as a second. A full server answers 429 and stays Ready:
if it left the Service, its load would fall on the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from chattts_server.engine.nouns import StepReport

MEMORY_SECONDS = 5.0  # of work, over which throughput is averaged
MAX_RETRY_AFTER_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: Literal["queue_full", "deadline"]
    predicted_wait: float  # seconds
    retry_after: int  # seconds


@dataclass(slots=True)
class Throughput:
    """Audio seconds per second of a full batch."""

    rows: int  # of a full batch
    value: float  # first guess: the engine's warm-up

    def learn(self, report: StepReport) -> None:
        """A batch that had room and left nobody waiting says nothing of the capacity, except when it beats it.

        Reports cover unequal times, steps alone or a long pass of the vocoder: each counts by its length.
        """
        if report.busy_seconds <= 0:
            return
        measured = report.audio_seconds / report.busy_seconds
        saturated = report.rows >= self.rows or report.waiting_rows > 0
        if saturated or measured > self.value:
            weight = 1 - math.exp(-report.busy_seconds / MEMORY_SECONDS)
            self.value += weight * (measured - self.value)


@dataclass(slots=True)
class Admission:
    """The ledger of what is admitted and not yet made, and the one decision on it."""

    max_wait: float  # seconds
    throughput: Throughput | None = None  # None: no engine has said Hello
    _held: dict[int, float] = field(default_factory=dict)  # ticket -> predicted audio seconds that are still to be made
    _tickets: int = 0

    @property
    def inflight(self) -> int:
        return len(self._held)

    @property
    def audio_seconds(self) -> float:
        return sum(self._held.values())

    def predicted_wait(self) -> float:
        """Seconds until a row that comes now would start."""
        return 0.0 if self.throughput is None else self.audio_seconds / self.throughput.value

    def refusal(self, now: float, deadline: float | None, jitter: float) -> Refusal | None:
        """None: there is a place. `jitter` in [0, 1) spreads the retries of clients that were refused together."""
        wait = self.predicted_wait()
        if wait > self.max_wait:
            return Refusal("queue_full", wait, self._retry_after(wait - self.max_wait, jitter))
        if deadline is not None and now + wait > deadline:
            return Refusal("deadline", wait, self._retry_after(now + wait - deadline, jitter))
        return None

    def enter(self, audio_seconds: float) -> int:
        self._tickets += 1
        self._held[self._tickets] = audio_seconds
        return self._tickets

    def made(self, ticket: int, audio_seconds: float) -> None:
        """So much of it nobody waits behind any more, however slowly it is read."""
        if ticket in self._held:
            self._held[ticket] = max(0.0, self._held[ticket] - audio_seconds)

    def leave(self, ticket: int) -> None:
        self._held.pop(ticket, None)

    def _retry_after(self, excess: float, jitter: float) -> int:
        """When the queue will have worked off the excess, plus up to half a queue so that not all come back at once."""
        return max(1, min(MAX_RETRY_AFTER_SECONDS, math.ceil(excess + jitter * self.max_wait / 2)))
