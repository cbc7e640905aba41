"""How many seconds a text will sound: the splitter's guess, corrected by what the rows of this process came to.

Learned per language, because voices hurry in one and not in the other. Nothing is kept over a restart: the guess
alone is then right within the bounds, and a minute of speech teaches again. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from chattts_server.text.splitter import predicted_seconds

Language = Literal["chinese", "other"]
# A factor outside would mean that something else is wrong: admission must not follow it.
SMALLEST_FACTOR, LARGEST_FACTOR = 0.4, 2.5
GUESS_SECONDS = 60.0  # the guess counts like so much speech that was heard
MEMORY_SECONDS = 1200.0  # of speech; older rows fade, so that another voice or speed is learned within minutes


def language_of(text: str) -> Language:
    """By the greater number of letters; a Chinese one is about two of another alphabet."""
    chinese = sum("\u4e00" <= character <= "\u9fff" for character in text)
    letters = sum(character.isalpha() for character in text) - chinese
    return "chinese" if chinese * 2 >= letters else "other"


@dataclass(slots=True)
class _Heard:
    guessed: float = GUESS_SECONDS
    came: float = GUESS_SECONDS


@dataclass(slots=True)
class Lengths:
    _heard: dict[Language, _Heard] = field(default_factory=lambda: {"chinese": _Heard(), "other": _Heard()})

    def factor(self, language: Language) -> float:
        heard = self._heard[language]
        return min(LARGEST_FACTOR, max(SMALLEST_FACTOR, heard.came / heard.guessed))

    def seconds(self, text: str) -> float:
        return predicted_seconds(text) * self.factor(language_of(text))

    def learn(self, text: str, seconds: float, ended: bool) -> None:
        """`ended`: by itself. A row that was stopped tells only that it would have been at least so long."""
        if not ended and seconds < self.seconds(text):
            return
        guess, heard = predicted_seconds(text), self._heard[language_of(text)]
        # One row that babbles or breaks off is no evidence beyond the bounds.
        came = min(LARGEST_FACTOR * guess, max(SMALLEST_FACTOR * guess, seconds))
        kept = min(1.0, MEMORY_SECONDS / (heard.guessed + guess))
        heard.guessed = (heard.guessed + guess) * kept
        heard.came = (heard.came + came) * kept
