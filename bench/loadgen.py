"""Open-loop load: sends when it is time to send, however slow the answers are. Knows nothing about the cluster.

    python -m bench.loadgen --url http://demo.default.svc --rate 28 --seconds 600 --max-seconds 1

Every latency counts from the *intended* send time, so a server (or a generator) that stalls cannot hide the
requests it held up. One JSON line a second on stdout, `{"summary": ...}` at the end (bench/README.md names
every field). SIGTERM or SIGINT: nothing more is sent, what is under way ends, the summary is printed, exit 0;
a second signal gives up what is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the folder that holds bench/ is where imports start (a ConfigMap's files
    sys.path.insert(0, str(Path(__file__).absolute().parent.parent))  # are links, so never resolve() them)

from bench.arrivals import intended_times
from bench.client import Answer, Client
from bench.plan import Plan, read_plan
from bench.tally import OK, REJECTED, Json, Tally

ABANDONED = "abandoned"  # given up by a second signal


async def run(plan: Plan, emit: Callable[[Json], None]) -> Json:
    """Drives the whole plan and returns the summary."""
    client = Client(plan.url, plan.speech, timeout_seconds=plan.timeout_seconds, keep_alive=plan.keep_alive)
    load = Load(plan, client)
    async with contextlib.aclosing(client), _ticking(load, emit), _signals(load.stop):
        await load.send_all()
        await load.finish()
    return load.summary()


class Load:
    """The requests of one run: those sent, those under way, and what they came to."""

    def __init__(self, plan: Plan, client: Client) -> None:
        self.tally = Tally()
        self._plan = plan
        self._client = client
        self._begun = time.monotonic()
        self._stopping = asyncio.Event()
        self._giving_up = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._mistake: BaseException | None = None

    def elapsed(self) -> float:
        return time.monotonic() - self._begun

    def stop(self) -> None:
        """First call: send no more. Second call: give up what is under way."""
        (self._giving_up if self._stopping.is_set() else self._stopping).set()

    async def send_all(self) -> None:
        plan, rng = self._plan, random.Random(f"texts {self._plan.seed}")
        for intended in intended_times(plan.rate, plan.arrival, plan.seconds, plan.seed):
            text, seed = rng.choice(plan.texts), rng.getrandbits(31)
            if await self._stopped_within(intended - self.elapsed()):
                return
            if self.tally.inflight >= plan.max_inflight:
                self.tally.not_sent()
                continue
            self.tally.start(lag=self.elapsed() - intended)
            task = asyncio.create_task(self._one(intended, text, seed if plan.request_seeds else None))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    async def finish(self) -> None:
        """Waits for what is under way; each request is bounded by its own timeout."""
        ending = asyncio.gather(*self._tasks, return_exceptions=True)
        giving_up = asyncio.create_task(self._giving_up.wait())
        waited_for: tuple[asyncio.Future[Any], ...] = (ending, giving_up)
        await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        giving_up.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        await ending
        if self._mistake is not None:
            raise self._mistake

    def summary(self) -> Json:
        plan = self._plan
        asked: Json = {
            "url": plan.url,
            "rate": plan.rate,
            "arrival": plan.arrival,
            "seconds": plan.seconds,
            "seed": plan.seed,
            "stream": plan.speech.stream,
            "stopped_by": "signal" if self._stopping.is_set() else "duration",
        }
        return asked | self.tally.summary(self.elapsed(), plan.slo_seconds, plan.speech.stream)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A mistake of the generator itself ends the run: it is never hidden in a count."""
        self._tasks.discard(task)
        if not task.cancelled() and (mistake := task.exception()):
            self._mistake = mistake
            self._stopping.set()

    async def _one(self, intended: float, text: str, seed: int | None) -> None:
        """One scheduled request to its end, Retry-After obeyed as often as the plan says."""
        kind, first_audio = ABANDONED, None
        try:
            answer = await self._speak_with_retries(text, seed)
            kind = answer.kind
            self.tally.audio_seconds += answer.audio_seconds
            self.tally.body_bytes += answer.body_bytes
            if answer.first_byte_at is not None:
                first_audio = answer.first_byte_at - self._begun - intended
        finally:
            now = self.elapsed()
            self.tally.end(kind, now, now - intended, first_audio)

    async def _speak_with_retries(self, text: str, seed: int | None) -> Answer:
        answer = await self._client.speak(text, seed)
        retries, obeyed = self.tally.retries, 0
        while answer.kind == REJECTED:
            retries.refused(answer.retry_after_s)
            if obeyed == self._plan.retries or answer.retry_after_s is None:
                break
            if await self._stopped_within(answer.retry_after_s):
                break
            obeyed += 1
            retries.obeyed += obeyed == 1
            answer = await self._client.speak(text, seed)
        retries.admitted += obeyed > 0 and answer.kind == OK
        return answer

    async def _stopped_within(self, seconds: float) -> bool:
        """Sleeps; True when the run was told to stop. A time already past still lets other tasks run once."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), max(0.0, seconds))
        if seconds <= 0:
            await asyncio.sleep(0)
        return self._stopping.is_set()


@contextlib.asynccontextmanager
async def _ticking(load: Load, emit: Callable[[Json], None]) -> AsyncIterator[None]:
    async def tick() -> None:
        for second in range(1, sys.maxsize):
            await asyncio.sleep(max(0.0, second - load.elapsed()))
            emit(load.tally.line(load.elapsed()))

    task = asyncio.create_task(tick())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def _signals(stop: Callable[[], None]) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def print_line(line: Json) -> None:
    print(json.dumps(line, ensure_ascii=False), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    plan = read_plan(sys.argv[1:] if argv is None else argv)
    print_line({"summary": asyncio.run(run(plan, print_line))})
    return 0


if __name__ == "__main__":
    sys.exit(main())
