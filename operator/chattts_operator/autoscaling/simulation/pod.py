"""One server pod: admission by predicted wait, a queue, and requests served by its curve. Knows no cluster."""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from .curve import Curve

BOUNDS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 8.0, 13.0, 30.0)  # the server's own
SPREAD = 0.1  # of the work of a request, to both sides


@dataclass(slots=True)
class Request:
    born: float  # first asked for
    asked: float  # this time
    tries: int = 1


@dataclass(slots=True)
class Sample:
    """What one scrape saw."""

    time: float
    buckets: list[int]  # cumulative; the last is the count
    offered: int
    refused: int
    inflight: int


@dataclass(slots=True)
class Pod:
    """`finished(request, now)` is told of every answer; `schedule(at, act)` calls back at that time."""

    number: int
    curve: Curve
    bounds: tuple[float, ...]
    max_wait: float
    slowness: Callable[[float], float]
    rng: random.Random
    schedule: Callable[[float, Callable[[float], None]], None]
    finished: Callable[[Request, float], None]
    created: float
    scheduled_at: float | None = None  # None: the scheduler finds no place
    ready_at: float | None = None  # known as soon as it is placed; may lie ahead
    leaving: bool = False
    samples: deque[Sample] = field(default_factory=deque)
    queue: deque[Request] = field(default_factory=deque)
    offered: int = 0
    refused: int = 0
    _counts: list[int] = field(default_factory=list)
    _running: list[tuple[float, int, Request]] = field(default_factory=list)  # by the progress at which each ends
    _progress: float = 0.0
    _progress_at: float = 0.0
    _turn: int = 0

    def __post_init__(self) -> None:
        self._counts = [0] * (len(self.bounds) + 1)

    def is_ready(self, now: float) -> bool:
        return not self.leaving and self.ready_at is not None and self.ready_at <= now

    @property
    def inflight(self) -> int:
        return len(self.queue) + len(self._running)

    def offer(self, request: Request, now: float) -> float | None:
        """None: admitted. Else the predicted wait over the bound, in seconds."""
        self.offered += 1
        wait = (len(self.queue) + len(self._running) / 2) / self.curve.capacity * self.slowness(now)
        if wait > self.max_wait:
            self.refused += 1
            return wait - self.max_wait
        self.queue.append(request)
        if self.curve.slots or not self._running:
            self._begin(now)
        return None

    def sample(self, now: float) -> None:
        total, buckets = 0, []
        for count in self._counts:
            total += count
            buckets.append(total)
        self.samples.append(Sample(now, buckets, self.offered, self.refused, self.inflight))
        while now - self.samples[0].time > 330:
            self.samples.popleft()

    def _begin(self, now: float) -> None:
        """Takes as many from the queue as there are places, and sets the alarm for the next that ends."""
        if not self.queue or len(self._running) >= self.curve.batch:
            return
        self._advance(now)
        work = self.rng.uniform(1 - SPREAD, 1 + SPREAD)
        while self.queue and len(self._running) < self.curve.batch:
            if self.curve.slots:
                work = self.rng.uniform(1 - SPREAD, 1 + SPREAD)
            self._turn += 1
            heapq.heappush(self._running, (self._progress + work, self._turn, self.queue.popleft()))
        self._set_alarm(now)

    def _advance(self, now: float) -> None:
        if self._running:
            self._progress += (now - self._progress_at) / self._seconds(self._progress_at)
        self._progress_at = now

    def _seconds(self, now: float) -> float:
        return self.curve.seconds(len(self._running)) * self.slowness(now)

    def _set_alarm(self, now: float) -> None:
        turn = self._turn = self._turn + 1
        remaining = max(0.0, self._running[0][0] - self._progress) * self._seconds(now)

        def alarm(at: float) -> None:
            if turn == self._turn:
                self._end(at)

        self.schedule(now + remaining, alarm)

    def _end(self, now: float) -> None:
        self._advance(now)
        while self._running and self._running[0][0] <= self._progress + 1e-9:
            request = heapq.heappop(self._running)[2]
            self._counts[bisect_left(self.bounds, now - request.asked)] += 1
            self.finished(request, now)
        if self.curve.slots or not self._running:
            self._begin(now)
        if self._running:
            self._set_alarm(now)
