"""Virtual time: the real Admission and FairQueue before an engine of slots, and clients that obey their Retry-After.

Everything random comes from one seed. A run of minutes takes milliseconds to seconds.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from chattts_server.admission import Admission, Ask, Refusal, Throughput
from chattts_server.engine.nouns import StepReport
from chattts_server.fair_queue import FairQueue

ROWS, RATE = 8, 10.0  # slots; audio seconds per second of all together
MEAN_SECONDS = 1.25  # of audio of a request: 8 requests a second are all that can be done
CAPACITY = RATE / MEAN_SECONDS


@dataclass(eq=False)
class Request:
    born: float
    caller: str
    fingerprint: int
    predicted: float
    actual: float
    on_end: Callable[[], None] = lambda: None
    tries: int = 0
    told: list[int] = field(default_factory=list)
    admitted: float | None = None
    started: float | None = None
    finished: float | None = None


class Crowd:
    def __init__(self, seed: int, max_wait: float = 3.0, obey: float = 1.0, texts: int | None = None) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.admission = Admission(max_wait, Throughput(ROWS, RATE))
        self.queue = FairQueue(ROWS + 4)
        self.requests: list[Request] = []
        self.served: Counter[str] = Counter()  # audio seconds by caller
        self.longest_queue = 0.0
        self._obey, self._texts = obey, texts
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._free = ROWS
        self._in_engine: list[Callable[[], None]] = []
        self._decoded, self._counted, self._reported = 0.0, 0.0, 0.0

    def at(self, time: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), act))

    def run(self, until: float) -> Crowd:
        while self._events and self._events[0][0] <= until:
            self.now, _, act = heapq.heappop(self._events)
            self._decode()
            act()
            self._report()
        self.now = until
        return self

    def arrive(self, times: Iterator[float], caller: str = "") -> Crowd:
        for time in times:
            self.at(time, lambda: self._knock(self.request(caller)))
        return self

    def request(self, caller: str, on_end: Callable[[], None] = lambda: None) -> Request:
        predicted = self.random.uniform(0.5, 2.0)
        text = self.random.randrange(self._texts) if self._texts else next(self._numbers)
        actual = predicted * self.random.uniform(0.7, 1.3)
        request = Request(self.now, caller, text, predicted, actual, on_end)
        self.requests.append(request)
        return request

    def client(self, caller: str, until: float) -> None:
        """Closed loop: the next request when the last one is over."""
        if self.now < until:
            self._knock(self.request(caller, lambda: self.at(self.now + 0.01, lambda: self.client(caller, until))))

    def _knock(self, request: Request) -> None:
        request.tries += 1
        ask = Ask(request.predicted, request.caller, request.fingerprint)
        answer = self.admission.admit(self.now, ask, self.random.random())
        if isinstance(answer, Refusal):
            assert answer.retry_after is not None
            request.told.append(answer.retry_after)
            if self.random.random() < self._obey:
                back = self.now + answer.retry_after + self.random.uniform(0.0, 0.05)
                self.at(back, lambda: self._knock(request))
            return
        request.admitted = self.now
        self.longest_queue = max(self.longest_queue, self.admission.audio_seconds / RATE)
        turn = self.queue.enter(request.caller, request.predicted, lambda _: self._submit(request, answer))
        request.leave = lambda: self.queue.leave(turn)  # type: ignore[attr-defined]

    def _submit(self, request: Request, ticket: int) -> None:
        self._in_engine.append(lambda: self._speak(request, ticket))
        self._fill()

    def _fill(self) -> None:
        while self._free and self._in_engine:
            self._free -= 1
            self._in_engine.pop(0)()

    def _speak(self, request: Request, ticket: int) -> None:
        request.started = self.now
        self.at(self.now + request.actual * ROWS / RATE, lambda: self._end(request, ticket))

    def _end(self, request: Request, ticket: int) -> None:
        request.finished = self.now
        self.served[request.caller] += request.actual
        self._free += 1
        self.admission.made(ticket, request.actual, request.actual)
        self.admission.leave(ticket, self.now)
        request.leave()  # type: ignore[attr-defined]
        self._fill()
        request.on_end()

    def _decode(self) -> None:
        """All rows step together, each by its share."""
        self._decoded += (self.now - self._counted) * (ROWS - self._free) * RATE / ROWS
        self._counted = self.now

    def _report(self) -> None:
        if (busy := self.now - self._reported) >= 0.25:
            report = StepReport(ROWS - self._free, 1, 0.0, busy, self._decoded, len(self._in_engine), {})
            assert self.admission.throughput is not None
            self.admission.throughput.learn(report)
            self._decoded, self._reported = 0.0, self.now


def poisson(chooser: random.Random, *phases: tuple[float, float, float]) -> Iterator[float]:
    """Times of arrival; each phase is (from, until, requests per second)."""
    for begin, end, rate in phases:
        time = begin + chooser.expovariate(rate)
        while time < end:
            yield time
            time += chooser.expovariate(rate)
