"""text_cases.tsv: how people write, and how it is read. One test per row; R20: no digit and no word vanishes."""

import re
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from chattts_server.text import tags
from chattts_server.text.abbreviations import read_abbreviations
from chattts_server.text.money import _CODES
from chattts_server.text.normalizer import normalize
from chattts_server.text.units import UNITS
from chattts_server.text.width import fold

LINES = (Path(__file__).parent / "text_cases.tsv").read_text(encoding="utf-8").splitlines()
CASES = [line.replace("\\n", "\n").split("\t") for line in LINES[1:]]
NUMERALS = dict(zip("零一幺二两三四五六七八九", "011223456789", strict=True))
ENGLISH_NUMERALS = re.compile(
    r"\b(zero|oh|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twent\w+|thirt\w+|fort\w+"
    r"|fift\w+|sixt\w+|sevent\w+|eight\w+|ninet\w+|hundreds?|thousands?|millions?|first|second|third|fourth|sixth|ninth"
    r"|half|a|quarters?|squared|cubed|halves|thirds|\w+ths?"
    r"|January|February|March|April|May|June|July|August|September|October|November|December)\b"
)
# Of currencies and degrees, the minutes of full hours, no dollars.
_SIGNS_WITH_LETTERS = re.compile(r"°[CF]|(?:HK|NT)(?=\$)|(?<=\d):00(?!:)|(?<=\$)0(?=\.)")
# Read as something else: halves of the day, months, marks of numbers.
NOT_WORDS = re.compile(
    "AM|PM|am|pm|x|[Nn]o|v|w|[eE]|T|Z|bn|M|B|st|nd|rd|th|k|s|d|day|Main|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
)


def test_there_are_five_hundred_cases():
    assert len(CASES) >= 500
    assert len({(written, choice) for written, choice, _ in CASES}) == len(CASES)


@pytest.mark.parametrize(("written", "choice", "reading"), CASES, ids=[written[:40] for written, _, _ in CASES])
def test_reading(written, choice, reading):
    assert normalize(written, choice).text == reading


@pytest.mark.parametrize(("written", "choice"), [case[:2] for case in CASES], ids=[case[0][:40] for case in CASES])
def test_r20_no_digit_and_no_word_vanishes(written, choice):
    assert missing(written, normalize(written, choice).text) == ""


@pytest.mark.parametrize(
    ("written", "spoken", "lost"),
    [
        ("价格是123元", "价格是元", "123"),  # what ChatTTS itself makes of it
        ("价格是123元", "价格是一百二十元", "3"),
        ("价格是123元", "价是一百二十三元", "格"),
        ("It is 15 now", "It is now", "15"),
        ("It is fine", "It fine", "is"),
    ],
)
def test_r20_would_see_what_vanished(written, spoken, lost):
    assert missing(written, spoken) == lost


def missing(written, spoken):
    """Digits, characters and words of `written` that left no trace in `spoken`. Knows no rule of the passes."""
    plain = _SIGNS_WITH_LETTERS.sub("", tags.without(fold(written)))
    if re.search("平方|立方|squared?|cub", spoken):
        plain = re.sub(r"\^[23]", "", plain)
    said = tags.without(spoken)
    return "".join([*_missing_digits(plain, said), *_missing_characters(plain, said), *_missing_words(plain, said)])


def _missing_digits(plain, said):
    """Each digit but 0 as a Chinese numeral, a 1 as 十 too; or each group of digits as an English number word."""
    words = ENGLISH_NUMERALS.findall(said)
    if words:
        groups = re.findall(r"\d+", plain.replace(",", ""))
        return groups[: max(0, len(groups) - len(words))] if not re.search("[\u4e00-\u9fff]", plain) else []
    here = Counter(NUMERALS[character] for character in said if character in NUMERALS)
    here -= Counter(NUMERALS[character] for character in plain if character in NUMERALS)  # those that were there before
    lost = Counter(re.findall("[1-9]", plain)) - here
    spare = said.count("十") - plain.count("十")
    lost["1"] -= min(lost["1"], spare)
    return sorted(lost.elements())


def _missing_characters(plain, said):
    """A currency that stands at both ends of an amount is said once; a unit after its sign too."""
    characters = re.compile("[\u4e00-\u9fff]")
    return list((Counter(characters.findall(plain)) - Counter(characters.findall(said))).elements())


def _missing_words(plain, said):
    letters = "".join(re.findall("[a-z]", said.lower()))
    for word in re.findall("[A-Za-z]+", read_abbreviations(plain, "en")):
        known = word in UNITS or word in _CODES or NOT_WORDS.fullmatch(word) or f"{word}." in ("St.", "Rd.")
        simple = unicodedata.normalize("NFKD", word).lower()
        if not known and simple not in letters:
            yield word
