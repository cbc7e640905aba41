"""What is written, as it is read: passes in order, each pure and linear. Knows neither tokens nor voices.

    width (NFKC) -> tags -> money, percent, years, numbers -> symbols -> punctuation -> allowed characters

A thin first form; the point is that no digit and no word vanishes in silence. What cannot be read is counted.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from chattts_server.text import numbers

Language = Literal["zh", "en"]
TAGS = ("[uv_break]", "[lbreak]", "[laugh]")  # the control tags that a user may write
_TAG = re.compile("(" + "|".join(re.escape(tag) for tag in TAGS) + ")")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_WORD = re.compile(r"[A-Za-z]+")
_GROUPED = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
_AMOUNT = re.compile(r"(?P<sign>(?<![\w.])-)?(?P<money>[¥$€£])?\s?(?P<number>\d+(?:\.\d+)?)(?P<unit>%|年)?")
_MONEY = {"¥": ("元", " yuan"), "$": ("美元", " dollars"), "€": ("欧元", " euros"), "£": ("英镑", " pounds")}
_SYMBOLS = {
    "&": ("和", " and "), "+": ("加", " plus "), "=": ("等于", " equals "), "@": ("艾特", " at "),
    "%": ("百分号", " percent "), "#": ("井号", " hash "), "*": ("乘", " times "), "×": ("乘", " times "),
    "÷": ("除以", " divided by "), "℃": ("摄氏度", " degrees "), "°": ("度", " degrees "),
    "¥": ("元", " yuan "), "$": ("美元", " dollars "), "€": ("欧元", " euros "), "£": ("英镑", " pounds "),
}  # fmt: skip
# ChatTTS knows these stops only: 。 and . end a sentence, ， 、 and , are pauses.
_ENDS, _PAUSES, _SILENT = "!?。.！？…", ";:,，、()（）<>《》「」『』【】[]{}—–-/\\|~_·", "\"'`“”‘’^\u200b\ufeff"
_ALLOWED = re.compile(r"[\u4e00-\u9fffA-Za-z，。、,. ]")


@dataclass(frozen=True, slots=True)
class Normalized:
    text: str  # allowed characters and control tags
    dropped: int  # characters that cannot be read
    language: Language


def normalize(text: str) -> Normalized:
    folded = unicodedata.normalize("NFKC", text)
    language: Language = "zh" if len(_CHINESE.findall(folded)) > len(_WORD.findall(folded)) else "en"
    parts = _TAG.split(folded)  # odd places hold the tags
    dropped = 0
    for place in range(0, len(parts), 2):
        spoken = _punctuate(_spell_symbols(_spell_numbers(parts[place], language), language), language)
        parts[place] = "".join(_ALLOWED.findall(spoken))
        dropped += len(spoken) - len(parts[place])
    return Normalized(re.sub(r" {2,}", " ", "".join(parts)).strip(), dropped, language)


def is_readable(text: str) -> bool:
    """Is there anything but stops and tags?"""
    return any(character.isalpha() for character in _TAG.sub("", text))


def _spell_numbers(text: str, language: Language) -> str:
    text = _GROUPED.sub(lambda match: match.group().replace(",", ""), text)

    def spell(match: re.Match[str]) -> str:
        near = _language_before(text, match.start()) or language
        return _spell_chinese(match) if near == "zh" or match["unit"] == "年" else _spell_english(match)

    return _AMOUNT.sub(spell, text)


def _language_before(text: str, end: int) -> Language | None:
    """The script of the letter just before, a few characters back at most."""
    for character in reversed(text[max(0, end - 8) : end]):
        if _CHINESE.match(character):
            return "zh"
        if character.isascii() and character.isalpha():
            return "en"
    return None


def _spell_chinese(match: re.Match[str]) -> str:
    number, unit = match["number"], match["unit"]
    is_year = unit == "年" and len(number) == 4
    read = ("负" if match["sign"] else "") + (numbers.chinese_digits(number) if is_year else numbers.chinese(number))
    if unit == "%":
        read = "百分之" + read
    return read + (_MONEY[match["money"]][0] if match["money"] else "") + ("年" if unit == "年" else "")


def _spell_english(match: re.Match[str]) -> str:
    read = ("minus " if match["sign"] else "") + numbers.english(match["number"])
    read += (_MONEY[match["money"]][1] if match["money"] else "") + (" percent" if match["unit"] == "%" else "")
    return f" {read} "


def _spell_symbols(text: str, language: Language) -> str:
    place = 0 if language == "zh" else 1
    return text.translate({ord(symbol): words[place] for symbol, words in _SYMBOLS.items()})


def _punctuate(text: str, language: Language) -> str:
    end, pause = ("。", "，") if language == "zh" else (".", ",")
    table: dict[int, str] = {ord(character): end for character in _ENDS}
    table |= {ord(character): pause for character in _PAUSES}
    table |= {ord(character): "" for character in _SILENT}
    table |= {ord("、"): "、", ord("'"): " " if language == "zh" else ""}
    spoken = re.sub(r"\s+", " ", text.translate(table))
    return re.sub(r"([，,])[，,]+", r"\1", re.sub(r"([。.])[。.]+", r"\1", spoken))
