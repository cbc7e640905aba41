"""Reference voices that wait to be encoded: which is next, and when. Knows no model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Thread

from chattts_server.engine.nouns import EncodeVoice

# While rows are spoken, each of which waits for as long as one encoding takes. Without rows nobody waits.
PAUSE_SECONDS = 1.0


class VoiceQueue:
    def __init__(self, prepare: Callable[[], None]) -> None:
        """`prepare` is called once, in a thread beside the loop; no voice is taken before it returns."""
        self._waiting: deque[EncodeVoice] = deque()
        self._since: float | None = None  # monotonic; the pause before the next one began. None: at the next look
        self._prepare = prepare
        self._preparation: Thread | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, request: EncodeVoice, now: float) -> None:
        if not self._waiting:
            self._since = now
        self._waiting.append(request)
        if self._preparation is None:
            self._preparation = Thread(target=self._prepare, name="prepare voices", daemon=True)
            self._preparation.start()

    def take(self, now: float, idle: bool) -> EncodeVoice | None:
        """The one to be encoded now, between two steps; None: none."""
        if not self._waiting or (self._preparation is not None and self._preparation.is_alive()):
            return None
        if self._since is None:  # the last encoding is over
            self._since = now
        if not idle and now - self._since < PAUSE_SECONDS:
            return None
        self._since = None
        return self._waiting.popleft()
