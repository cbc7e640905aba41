"""Text that comes in pieces, cut where it can be spoken. Pure; nothing is lost and order is kept. Knows no socket."""

from __future__ import annotations

import re
import unicodedata
from collections import deque

LONGEST_SENTENCE = 200  # characters; a longer one is cut at its last pause, or anywhere
MOST_AT_ONCE = 300  # characters of several sentences that are spoken together
# After a Chinese stop or a line's end the sentence is over; "3." may go on as "3.14": only a space tells.
_END = re.compile(r"[。！？…；\n][。！？…；\n”’」』）)\"']*|[.!?]+[\"')”’]*(?=\s)")
_MAYBE_END = ".!?\"')”’"
_PAUSE = re.compile(r"[，、：,:;]|\s")


class Sentences:
    """`add` pieces, `take` what is complete; after `flush` all that is there is complete."""

    def __init__(self) -> None:
        self._ready: deque[str] = deque()
        self._rest = ""
        self._searched = 0  # of the rest: no end begins before
        self.characters = 0  # that wait, complete or not

    def add(self, piece: str) -> None:
        self.characters += len(piece)
        self._rest += piece
        begin = 0
        for end in _END.finditer(self._rest, self._searched):
            self._complete(self._rest[begin : end.end()])
            begin = end.end()
        self._rest = self._rest[begin:]
        self._searched = len(self._rest.rstrip(_MAYBE_END))
        if len(self._rest) > LONGEST_SENTENCE:
            self._complete_long_rest()

    def flush(self) -> None:
        self._complete(self._rest)
        self._rest, self._searched = "", 0

    def take(self) -> str | None:
        """Complete sentences that together are not long; None when there is nothing complete to be heard.

        Stops and spaces alone wait for what follows them.
        """
        taken, silent = "", True
        while self._ready and (silent or len(taken) + len(self._ready[0]) <= MOST_AT_ONCE):
            part = self._ready.popleft()
            silent = silent and _is_silent(part)
            taken += part
        if silent:
            self._complete(taken)
            return None
        self.characters -= len(taken)
        return taken

    def clear(self) -> int:
        """How many characters were waiting."""
        dropped, self.characters = self.characters, 0
        self._ready.clear()
        self._rest, self._searched = "", 0
        return dropped

    def _complete(self, sentence: str) -> None:
        while len(sentence) > LONGEST_SENTENCE:
            at = _last_pause(sentence[:LONGEST_SENTENCE])
            self._ready.append(sentence[:at])
            sentence = sentence[at:]
        if sentence:
            self._ready.append(sentence)

    def _complete_long_rest(self) -> None:
        """But for its last part, which may go on."""
        self._complete(self._rest)
        self._rest = self._ready.pop()
        self._searched = len(self._rest.rstrip(_MAYBE_END))


def _last_pause(run: str) -> int:
    return max((pause.end() for pause in _PAUSE.finditer(run)), default=len(run))


def _is_silent(text: str) -> bool:
    return all(unicodedata.category(character)[0] in "PZC" for character in text)
