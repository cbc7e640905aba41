"""When refused requests are to come back, so that those who do find a place. Pure: knows no ledger and no HTTP.

The waiting line of a full server stands outside, at its clients: each refused request gets the next free moment of a
book that is filled a little slower than the engine works. A client that obeys its Retry-After is known again by its
request's fingerprint, and let in before those that come for the first time (admission.py leaves room for it): ADR 9.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict, deque
from dataclasses import dataclass, field

MAX_TOLD_SECONDS = 60  # clients such as OpenAI's obey no longer Retry-After
LONGEST_BOOKED_SECONDS = 600.0  # beyond it nobody is still there
MAX_ENTRIES = 5_000  # of one caller; some 2 MB
SHARE = 0.9  # of the throughput is booked; the rest is for what was predicted too short, and for newcomers
EARLY_SECONDS = 0.02  # nobody sleeps less than it was told; more would let strangers with the same text go first
GRACE_SECONDS = 2.0  # after which one that was expected does not come any more
SHOW_MEMORY = 20.0  # appointments, over which the share of those that are kept is averaged
LEAST_SHOW = 0.25  # even of clients that never came, so many might


@dataclass(slots=True, eq=False)
class Appointment:
    caller: str
    fingerprint: int
    audio_seconds: float
    due: float  # monotonic; its place in the line
    expected: float  # monotonic; what the client was told. Earlier than `due` in a line longer than can be told
    open: bool = True


@dataclass(slots=True)
class _Line:
    audio_seconds: float = 0.0
    entries: int = 0


@dataclass(slots=True)
class Appointments:
    """The book. Every method first forgets those that were missed."""

    show: float = 1.0  # share of appointments that are kept: learned
    _lines: dict[str, _Line] = field(default_factory=dict)
    _by_fingerprint: dict[int, deque[Appointment]] = field(default_factory=dict)
    _by_time: list[tuple[float, int, Appointment]] = field(default_factory=list)  # heap; stale items are passed over
    _seconds: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))  # expected second -> audio
    _booked: int = 0

    def __len__(self) -> int:
        return sum(line.entries for line in self._lines.values())

    def callers(self) -> set[str]:
        return set(self._lines)

    def kept(self, caller: str, fingerprint: int, now: float) -> Appointment | None:
        """The appointment that a request comes to; None: it is new, or too early to be known."""
        self._forget_missed(now)
        entries = self._by_fingerprint.get(_key(caller, fingerprint), ())
        return next((entry for entry in entries if entry.expected - EARLY_SECONDS <= now), None)

    def book(
        self,
        caller: str,
        fingerprint: int,
        audio_seconds: float,
        now: float,
        free_in: float,
        rate: float,
        jitter: float,
    ) -> int:
        """Whole seconds to wait. `free_in`: until the first place; `rate`: audio seconds a second for this caller."""
        self._forget_missed(now)
        line = self._lines.setdefault(caller, _Line())
        ahead = line.audio_seconds * max(LEAST_SHOW, self.show) / (rate * SHARE)
        due = now + max(free_in, ahead)
        if line.entries >= MAX_ENTRIES or due - now > LONGEST_BOOKED_SECONDS:
            return math.ceil(MAX_TOLD_SECONDS * (0.75 + 0.25 * jitter))  # no promise, and not all at once
        told = _told(due - now, jitter)
        entry = Appointment(caller, fingerprint, audio_seconds, due, now + told)
        self._by_fingerprint.setdefault(_key(caller, fingerprint), deque()).append(entry)
        line.audio_seconds += audio_seconds
        line.entries += 1
        self._expect(entry)
        return told

    def put_off(self, entry: Appointment, now: float, seconds: float, jitter: float) -> int:
        """It keeps its place in the line. Whole seconds to wait."""
        told = _told(seconds, jitter)
        self._unexpect(entry)
        entry.expected = now + told
        self._expect(entry)
        return told

    def close(self, entry: Appointment) -> None:
        """It was kept."""
        self._remove(entry)
        self.show += (1.0 - self.show) / SHOW_MEMORY

    def expected_audio_seconds(self, now: float, within: float) -> float:
        """Audio of those that will probably come back within so many seconds (at most 60)."""
        self._forget_missed(now)
        seconds = range(int(now), int(now + within) + 1)  # who is late by more than that will hardly come any more
        return self.show * sum(self._seconds.get(second, 0.0) for second in seconds)

    def _forget_missed(self, now: float) -> None:
        while self._by_time and self._by_time[0][0] + GRACE_SECONDS < now:
            expected, _, entry = heapq.heappop(self._by_time)
            if entry.open and entry.expected == expected:
                self._remove(entry)
                self.show -= self.show / SHOW_MEMORY

    def _expect(self, entry: Appointment) -> None:
        self._booked += 1
        heapq.heappush(self._by_time, (entry.expected, self._booked, entry))
        self._seconds[int(entry.expected)] += entry.audio_seconds

    def _unexpect(self, entry: Appointment) -> None:
        second = int(entry.expected)
        self._seconds[second] -= entry.audio_seconds
        if self._seconds[second] < 1e-9:
            del self._seconds[second]

    def _remove(self, entry: Appointment) -> None:
        entry.open = False
        self._unexpect(entry)
        key = _key(entry.caller, entry.fingerprint)
        entries = self._by_fingerprint[key]
        entries.remove(entry)
        if not entries:
            del self._by_fingerprint[key]
        line = self._lines[entry.caller]
        line.audio_seconds -= entry.audio_seconds
        line.entries -= 1
        if not line.entries:
            del self._lines[entry.caller]


def _key(caller: str, fingerprint: int) -> int:
    return hash((caller, fingerprint))


def _told(seconds: float, jitter: float) -> int:
    """Up to a second or a tenth later, so that those who were refused together do not come back together."""
    later = seconds + jitter * max(1.0, seconds / 10)
    return max(1, min(MAX_TOLD_SECONDS, math.ceil(later)))
