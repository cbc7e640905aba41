"""How many seconds a text will sound: the splitter's guess, corrected by what the rows of this process came to.

Learned per language, because voices hurry in one and not in the other. Nothing is kept over a restart: the guess
alone is then right within the bounds, and a minute of speech teaches again. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from chattts_server.text.language import Language
from chattts_server.text.splitter import predicted_seconds

# A factor outside would mean that something else is wrong: admission must not follow it.
SMALLEST_FACTOR, LARGEST_FACTOR = 0.4, 2.5
GUESS_SECONDS = 60.0  # the guess counts like so much speech that was heard
MEMORY_SECONDS = 1200.0  # of speech; older rows fade, so that another voice or speed is learned within minutes


@dataclass(slots=True)
class _Heard:
    guessed: float = GUESS_SECONDS
    came: float = GUESS_SECONDS


@dataclass(slots=True)
class Lengths:
    _heard: dict[Language, _Heard] = field(default_factory=lambda: {"zh": _Heard(), "en": _Heard()})

    def factor(self, language: Language) -> float:
        heard = self._heard[language]
        return min(LARGEST_FACTOR, max(SMALLEST_FACTOR, heard.came / heard.guessed))

    def seconds(self, text: str, language: Language) -> float:
        return predicted_seconds(text) * self.factor(language)

    def learn(self, text: str, language: Language, seconds: float, ended: bool) -> None:
        """`ended`: by itself. A row that was stopped tells only that it would have been at least so long."""
        if not ended and seconds < self.seconds(text, language):
            return
        guess, heard = predicted_seconds(text), self._heard[language]
        # One row that babbles or breaks off is no evidence beyond the bounds.
        came = min(LARGEST_FACTOR * guess, max(SMALLEST_FACTOR * guess, seconds))
        kept = min(1.0, MEMORY_SECONDS / (heard.guessed + guess))
        heard.guessed = (heard.guessed + guess) * kept
        heard.came = (heard.came + came) * kept
