"""A queue of keys: each at most once waiting, at most once in work, with back-off. Knows nothing of what a key means.

All times are those of the running loop, so a test with a virtual clock sees them exactly.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    def __init__(
        self, first_back_off: float = 1.0, longest_back_off: float = 60.0, chance: Callable[[], float] = random.random
    ) -> None:
        self._first, self._longest, self._chance = first_back_off, longest_back_off, chance
        self._ready: deque[K] = deque()
        self._since: dict[K, float] = {}  # keys in _ready, and since when
        self._working: set[K] = set()
        self._again: set[K] = set()  # added while in work
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._wake = asyncio.Event()

    def add(self, key: K, delay: float = 0.0) -> None:
        """Adding twice is adding once; of two delays the shorter holds. A back-off is cut short by none.

        So what a user changes meanwhile waits too, at most for one and a half times the longest back-off.
        """
        timer = self._timers.get(key)
        if timer is not None and key in self._failures and key not in self._working:
            return
        if delay <= 0:
            self._cancel_timer(key)
            self._enqueue(key)
        elif timer is None or timer.when() > asyncio.get_running_loop().time() + delay:
            self._start_timer(key, delay)

    def _start_timer(self, key: K, delay: float) -> None:
        self._cancel_timer(key)
        self._timers[key] = asyncio.get_running_loop().call_later(delay, self._due, key)

    def _due(self, key: K) -> None:
        """The timer goes first: while it is there, a key that has failed is in its back-off."""
        self._timers.pop(key, None)
        self._enqueue(key)

    def _enqueue(self, key: K) -> None:
        loop = asyncio.get_running_loop()
        if key in self._working:
            self._again.add(key)
        elif key not in self._since:
            self._since[key] = loop.time()
            self._ready.append(key)
            self._wake.set()

    async def work(self, handle: Callable[[K], Awaitable[float | None]]) -> None:
        """One worker, for ever. `handle` returns after how many seconds it wants the key again, or None.

        An exception brings the key back after a growing delay; it may say itself how long by `retry_after`.
        """
        while True:
            key = await self._take()
            try:
                after = await handle(key)
            except Exception as error:
                self._working.discard(key)
                self._again.discard(key)
                self._start_timer(key, self._back_off(key, getattr(error, "retry_after", None)))
            else:
                self._failures.pop(key, None)
                self._done(key, after)

    def depth(self) -> int:
        return len(self._ready)

    def oldest_seconds(self) -> float:
        """How long the longest waiting key waits."""
        if not self._since:
            return 0.0
        return asyncio.get_running_loop().time() - min(self._since.values())

    async def _take(self) -> K:
        while not self._ready:
            self._wake.clear()
            await self._wake.wait()
        key = self._ready.popleft()
        del self._since[key]
        self._working.add(key)
        return key

    def _done(self, key: K, after: float | None) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
        elif after is not None:
            self.add(key, after)

    def _back_off(self, key: K, retry_after: float | None) -> float:
        """A storm of events must not become a storm of requests, nor a server's own words a stand-still."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(self._longest, self._first * 2.0 ** min(failures - 1, 16))
        return max(min(retry_after or 0.0, self._longest), delay * (0.5 + self._chance()))

    def _cancel_timer(self, key: K) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
