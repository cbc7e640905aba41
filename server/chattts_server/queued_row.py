"""A row that waits for its turn (fair_queue.py) and then speaks (engine/row_stream.py). Knows neither text nor HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from chattts_server.engine.nouns import Chunk, Finish
from chattts_server.engine.row_stream import Item, RowStream
from chattts_server.errors import ServerError
from chattts_server.fair_queue import FairQueue, Turn
from chattts_server.tracing import Spans


class QueuedRow:
    """Iterate over PCM chunks; close it, whatever happened.

    `prompt`: its token ids, or what makes them within the row's turn (the text stage, which needs the engine, too).
    `submit` gets them and what is to hear of each item.
    """

    def __init__(
        self,
        queue: FairQueue,
        caller: str,
        seconds: float,
        prompt: list[int] | Callable[[], Awaitable[list[int]]],
        submit: Callable[[list[int], Callable[[Item], None]], RowStream],
        on_item: Callable[[Item], None],
        clock: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._prompt = prompt
        self._submit = submit
        self._on_item = on_item
        self._clock = clock
        self._row: RowStream | None = None
        self._error: Exception | None = None
        self._came = asyncio.Event()  # its turn
        self._ready = asyncio.Event()  # it is with the engine, or never will be
        self._preparing: asyncio.Task[None] | None = None
        self.entered = clock()  # monotonic
        self.begun: float | None = None  # monotonic; its turn came
        self.submitted: float | None = None  # monotonic
        self._turn = queue.enter(caller, seconds, self._start)

    @property
    def waited_seconds(self) -> float:
        """For its turn; the engine counts what comes after the text stage."""
        return 0.0 if self.begun is None else self.begun - self.entered

    @property
    def finish(self) -> Finish | None:
        return None if self._row is None else self._row.finish

    @property
    def finished_at(self) -> float:
        return 0.0 if self._row is None else self._row.finished_at

    @property
    def starved_seconds(self) -> float:
        return 0.0 if self._row is None else self._row.starved_seconds

    @property
    def has_arrived(self) -> bool:
        return self._row is not None and self._row.has_arrived

    async def turn(self) -> None:
        """Returns when the row's turn has come."""
        await self._came.wait()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await self._ready.wait()
        if self._error is not None:
            raise self._error
        assert self._row is not None
        return await anext(self._row)

    def close(self) -> None:
        """Nobody waits for it any more; harmless afterwards."""
        if self._preparing is not None:
            self._preparing.cancel()
        if self._row is not None:
            self._row.close()
        self._queue.leave(self._turn)

    def tell(self, spans: Spans, piece: int) -> None:
        """Where its time went, by the engine's own clock. Passes of the vocoder lie between steps; here they follow."""
        if self.begun is None or self.submitted is None or self.finish is None:
            name = "queue" if self.begun is None else "unfinished"
            spans.add(name, self.entered, self._clock() - self.entered, piece=piece)
            return
        finish, start = self.finish, self.entered
        queue = [("queue", self.waited_seconds + finish.queued_seconds)]
        if self._preparing is not None:
            refining = ("refine", self.submitted - self.begun)
            queue = [("queue", self.waited_seconds), refining, ("queue", finish.queued_seconds)]
        for name, seconds in (
            *queue,
            ("prefill", finish.prefill_seconds),
            ("decode", finish.decode_seconds),
            ("vocode", finish.vocode_seconds),
        ):
            spans.add(name, start, seconds, piece=piece)
            start += seconds

    def _start(self, turn: Turn) -> None:
        self._turn = turn  # it may come before enter() returns
        self.begun = self._clock()
        self._came.set()
        if isinstance(self._prompt, list):
            self._speak(self._prompt)
        else:
            self._preparing = asyncio.ensure_future(self._prepare(self._prompt))

    async def _prepare(self, make: Callable[[], Awaitable[list[int]]]) -> None:
        try:
            self._speak(await make())
        except Exception as error:  # whoever reads the row gets it
            self._fail(error)

    def _speak(self, token_ids: list[int]) -> None:
        self.submitted = self._clock()
        try:
            self._row = self._submit(token_ids, self._hear)
        except ServerError as error:
            self._fail(error)
        self._ready.set()

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._queue.leave(self._turn)
        self._ready.set()

    def _hear(self, item: Item) -> None:
        """Its place is free when all is made, and while the engine waits for its reader: he must hold up nobody."""
        if not isinstance(item, Chunk) or (self._row is not None and self._row.starved):
            self._queue.leave(self._turn)
        self._on_item(item)
