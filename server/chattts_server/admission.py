"""Who gets in: bounded by the predicted wait, audio seconds over learned throughput. Pure: no clock, no socket.

A bounded *count* would let in a minute of audio as easily as a second. A full server answers 429 and stays Ready: if it
left the Service, its load would fall on the others. Who is refused gets an appointment (appointments.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from chattts_server.appointments import EARLY_SECONDS, MAX_TOLD_SECONDS, SHARE, Appointment, Appointments
from chattts_server.budget import Budget
from chattts_server.engine.nouns import StepReport

MEMORY_SECONDS = 5.0  # of work, over which throughput is averaged
# While others are expected back, those that come for the first time leave them so much of the queue.
NEWCOMERS_SHARE = 0.35
# Retry-After is in whole seconds, so those who were told the same one may come together: a promise bends the bound.
ROUNDING_SECONDS = 1.0
# Each caller's own wait is bounded; all together may pile up more, as one who floods makes no room for others at once.
ALL_CALLERS = 3.0

RefusalReason = Literal["queue_full", "deadline", "budget", "too_long"]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request at the door. Filled by synthesis.py."""

    audio_seconds: float  # predicted
    caller: str = ""  # name of its API key
    fingerprint: int = 0  # the same request, sent again, has the same one
    deadline: float | None = None  # monotonic; to the first audio, or to all of it when it is wanted whole
    whole: bool = False  # nothing is sent before all is made


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: RefusalReason
    predicted_wait: float  # seconds
    retry_after: int | None  # seconds; None: never, as it is


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
class _Held:
    caller: str
    asked: float  # audio seconds that were predicted
    left: float  # of them, still to be made
    made: float = 0.0


@dataclass(slots=True)
class Admission:
    """The ledger of what is admitted and not yet made, the appointments, and the one decision on both."""

    max_wait: float  # seconds
    throughput: Throughput | None = None  # None: no engine has said Hello
    budget: Budget = field(default_factory=lambda: Budget(None))
    appointments: Appointments = field(default_factory=Appointments)
    _held: dict[int, _Held] = field(default_factory=dict)  # by ticket
    _callers: dict[str, float] = field(default_factory=dict)  # audio seconds still to be made; only of callers inside
    _tickets: int = 0

    @property
    def inflight(self) -> int:
        return len(self._held)

    @property
    def audio_seconds(self) -> float:
        return sum(self._callers.values())

    def predicted_wait(self, caller: str = "") -> float:
        """Seconds until a row of this caller would start: nobody goes before it with more than it has."""
        if self.throughput is None:
            return 0.0
        own = self._callers.get(caller, 0.0)
        return sum(min(own, held) for held in self._callers.values()) / self.throughput.value

    def admit(self, now: float, ask: Ask, jitter: float) -> int | Refusal:
        """A ticket, or why not. `jitter` in [0, 1) spreads the retries of clients that were refused together."""
        if self.throughput is None:
            return self._enter(ask, now)
        own = ask.audio_seconds / self.throughput.value
        if ask.whole and ask.deadline is not None and now + own > ask.deadline:
            return Refusal("too_long", own, None)
        poor = self.budget.wait(ask.caller, ask.audio_seconds, now)
        if poor > 0:
            return Refusal("budget", poor, max(1, min(MAX_TOLD_SECONDS, math.ceil(poor + jitter))))
        return self._by_wait(now, ask, own, jitter)

    def made(self, ticket: int, audio_seconds: float, freed: float) -> None:
        """So much audio came; behind so much of what was predicted nobody waits any more, however slowly it is read."""
        if ticket in self._held:
            held = self._held[ticket]
            held.made += audio_seconds
            self._give_back(held, min(held.left, freed))

    def leave(self, ticket: int, now: float) -> None:
        """Over, in whatever way: what was paid for and not made is given back."""
        held = self._held.pop(ticket, None)
        if held is None:
            return
        self._give_back(held, held.left)
        self.budget.spend(held.caller, held.made - held.asked, now)
        if not any(other.caller == held.caller for other in self._held.values()):
            del self._callers[held.caller]

    def _by_wait(self, now: float, ask: Ask, own: float, jitter: float) -> int | Refusal:
        wait = self.predicted_wait(ask.caller)
        kept = self.appointments.kept(ask.caller, ask.fingerprint, now)
        if kept is not None and kept.due > now + EARLY_SECONDS:  # the line is longer than can be told at once
            told = self.appointments.put_off(kept, now, kept.due - now, jitter)
            return Refusal("queue_full", kept.due - now, told)
        bound = self._newcomers_bound(now) if kept is None else self.max_wait + ROUNDING_SECONDS
        if wait > bound or self._wait_of_all() > ALL_CALLERS * self.max_wait:
            return Refusal("queue_full", wait, self._come_again(now, ask, kept, wait - bound, jitter))
        ready = now + wait + (own if ask.whole else 0.0)
        if ask.deadline is not None and ready > ask.deadline:
            return Refusal("deadline", wait, self._come_again(now, ask, kept, ready - ask.deadline, jitter))
        if kept is not None:
            self.appointments.close(kept)
        return self._enter(ask, now)

    def _come_again(self, now: float, ask: Ask, kept: Appointment | None, excess: float, jitter: float) -> int:
        assert self.throughput is not None
        if kept is not None:
            return self.appointments.put_off(kept, now, excess, jitter)
        contending = {*self._callers, *self.appointments.callers(), ask.caller}
        rate = self.throughput.value / len(contending)
        return self.appointments.book(ask.caller, ask.fingerprint, ask.audio_seconds, now, excess, rate, jitter)

    def _newcomers_bound(self, now: float) -> float:
        """The whole queue when nobody is expected back; a part of it when as much is expected as can be worked off."""
        assert self.throughput is not None
        within = min(self.max_wait, MAX_TOLD_SECONDS)
        expected = self.appointments.expected_audio_seconds(now, within)
        share = min(1.0, expected / (SHARE * self.throughput.value * within))
        return self.max_wait * (1 - share * (1 - NEWCOMERS_SHARE))

    def _wait_of_all(self) -> float:
        assert self.throughput is not None
        return self.audio_seconds / self.throughput.value

    def _enter(self, ask: Ask, now: float) -> int:
        self._tickets += 1
        self._held[self._tickets] = _Held(ask.caller, ask.audio_seconds, ask.audio_seconds)
        self._callers[ask.caller] = self._callers.get(ask.caller, 0.0) + ask.audio_seconds
        self.budget.spend(ask.caller, ask.audio_seconds, now)
        return self._tickets

    def _give_back(self, held: _Held, audio_seconds: float) -> None:
        held.left -= audio_seconds
        self._callers[held.caller] = max(0.0, self._callers[held.caller] - audio_seconds)
