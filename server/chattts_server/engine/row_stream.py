"""The audio of one row as an async iterator, with its credit. Knows neither the process nor the socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from chattts_server.engine.nouns import Cancel, Chunk, Credit, Finish
from chattts_server.errors import ServerError

Item = Chunk | Finish | ServerError  # what can come for a row


class RowStream:
    """Iterate over PCM chunks; `finish` is set at the end. Close it to cancel the row. Made by EngineClient.submit."""

    def __init__(
        self,
        row_id: int,
        window: bool,
        credit: int,
        send: Callable[[Credit | Cancel], None],
        forget: Callable[[int], None],
        clock: Callable[[], float],
        on_item: Callable[[Item], None] = lambda _: None,
    ) -> None:
        self.id = row_id
        self.finish: Finish | None = None
        self.finished_at = 0.0  # monotonic: all audio was on this side
        self.starved_seconds = 0.0  # the engine waited for the reader
        self._window = window  # credit is renewed as chunks are read
        self._credit = credit  # samples that the engine may still send
        self._send = send
        self._forget = forget
        self._clock = clock
        self._on_item = on_item
        self._arrived: asyncio.Queue[Item] = asyncio.Queue()
        self._starved_since: float | None = None
        self._reading = False  # until it is read, no reader is slow
        self._over = False

    @property
    def starved(self) -> bool:
        """The engine waits for the reader."""
        return self._credit <= 0

    @property
    def has_arrived(self) -> bool:
        """The next item is here: reading it takes no time."""
        return not self._arrived.empty()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._over:
            raise StopAsyncIteration
        if not self._reading:
            self._reading = True
            if self._credit <= 0:
                self._starved_since = self._clock()
        item = await self._arrived.get()
        match item:
            case Chunk(pcm=pcm):
                if self._window:
                    self.give_credit(len(pcm) // 4)
                return pcm
            case Finish():
                self._over, self.finish = True, item
                raise StopAsyncIteration
            case ServerError():
                self._over = True
                raise item

    def give_credit(self, samples: int) -> None:
        self._credit += samples
        if self._starved_since is not None and self._credit > 0:
            self.starved_seconds += self._clock() - self._starved_since
            self._starved_since = None
        self._send(Credit(self.id, samples))

    def close(self) -> None:
        """Cancels what is not finished; harmless afterwards."""
        if not self._over:
            self._over = True
            self._forget(self.id)

    def deliver(self, item: Item) -> None:
        """For EngineClient: what came for this row."""
        if isinstance(item, Chunk):
            self._credit -= len(item.pcm) // 4
            if self._credit <= 0 and self._reading:
                self._starved_since = self._clock()
        elif isinstance(item, Finish):
            self.finished_at = self._clock()
            self._starved_since = None  # all was sent: what was left to read never held the engine up
        self._arrived.put_nowait(item)
        self._on_item(item)
