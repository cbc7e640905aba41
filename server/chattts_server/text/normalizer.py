"""What is written, as it is read: passes in order, each pure and linear. Knows neither tokens nor voices.

    width -> control tags -> language of each stretch -> abbreviations -> addresses -> dates and times -> money
    -> percent and units -> ids -> figures -> symbols -> allowed characters (-> homophones)

No digit and no word vanishes: what cannot be read is counted. docs/text.md says what is read how.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chattts_server.text import alphabet, tags
from chattts_server.text.abbreviations import read_abbreviations
from chattts_server.text.addresses import read_addresses
from chattts_server.text.dates import read_dates
from chattts_server.text.figures import read_figures
from chattts_server.text.homophones import replace_homophones
from chattts_server.text.ids import read_ids
from chattts_server.text.language import Choice, Language, main_language, segments
from chattts_server.text.money import read_money
from chattts_server.text.quantities import read_quantities
from chattts_server.text.symbols import read_symbols
from chattts_server.text.width import fold

PASSES: tuple[Callable[[str, Language], str], ...] = (
    read_abbreviations,
    read_addresses,
    read_dates,
    read_money,
    read_ids,
    read_quantities,
    read_figures,
    read_symbols,
)


@dataclass(frozen=True, slots=True)
class Normalized:
    text: str  # allowed characters and control tags
    dropped: int  # characters that cannot be read
    language: Language


def normalize(text: str, choice: Choice = "auto") -> Normalized:
    """As a person would read it. `choice` overrides what the text's script says."""
    folded = fold(text)
    language = main_language(tags.without(text), choice)
    parts = tags.divide(folded)
    dropped = 0
    for place in range(0, len(parts), 2):
        parts[place], left_out = _read(parts[place], language, choice)
        dropped += left_out
    return Normalized(alphabet.tidy("".join(parts)), dropped, language)


def prepare() -> None:
    """Loads the tables that the first text would wait for (tens of milliseconds)."""
    pronounceable(normalize("為1 and 2").text)


def pronounceable(text: str) -> str:
    """A normalised text with the characters that the released weights say rightly; its length and tags stay."""
    return replace_homophones(text)


def is_readable(text: str) -> bool:
    """Is there anything but stops and tags?"""
    return any(character.isalpha() for character in tags.without(text))


def _read(text: str, main: Language, choice: Choice) -> tuple[str, int]:
    spoken, dropped = "", 0
    for segment in segments(text, main, choice):
        read = segment.text
        for one_pass in PASSES:
            read = one_pass(read, segment.language)
        allowed, left_out = alphabet.restrict(read, segment.language)
        spoken += allowed
        dropped += left_out
    return spoken, dropped
