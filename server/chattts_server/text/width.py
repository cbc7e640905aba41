"""One form for what can be written in several: width, accents, number forms, traditional characters. Pure.

NFKC alone would lose meaning: 1½ becomes 11/2, m² m2, ①2 12. Those forms are spelt out before it.
"""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from functools import cache
from pathlib import Path

import kaldifst

# Chinese stops keep their width: they say what is Chinese text.
_KEPT = re.compile("([，！？；：（）。、《》【】「」『』“”‘’…—]+)")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")
_ENCLOSED = re.compile("[①-⒛⓪⓵-⓾❶-➓㈠-㈩㊀-㊉]")
_FRACTION = re.compile(r"(?:(\d) ?)?([¼-¾⅐-⅞])")
_ROMAN = {chr(0x2160 + n): str(n + 1) for n in range(12)} | {chr(0x2170 + n): str(n + 1) for n in range(12)}
_FORMS = str.maketrans(
    _ROMAN
    | {"㎡": "m^2", "㎥": "m^3", "㎢": "km^2", "㎝": "cm", "〇": "零", "後": "后",
       "於": "于", "µ": "μ", "℃": "°C", "℉": "°F", "№": "No.",
       "∶": ":", "−": "-", "″": "\"", "‐": "-", "‑": "-", "⁄": "/", "∕": "/", "′": "'", "´": "'", "＇": "'",
       "ß": "ss", "æ": "ae", "Æ": "AE",
       "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ı": "i", "の": "的",
       "™": " TM ", "®": "", "©": ""}
)  # fmt: skip
_ENDS_OF_LINE = str.maketrans(dict.fromkeys("\r\x0b\x0c\x85\u2028\u2029", "\n"))
_BLANKS, _LINES = re.compile(r"[^\S\n]+"), re.compile(r" ?\n[ \n]*")
_ZERO_WIDTH = re.compile("[\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff\u00ad]")
_GAP = re.compile(r"(?<=[\u4e00-\u9fff]{2})[ \u3000]+(?=[\u4e00-\u9fff]{2})")  # in a chat, a space is a stop
_BETWEEN_DIGITS = re.compile(r"(?<=\d)：(?=\d)")
_GROUPED = re.compile(r"(?<![\d，])\d{1,3}(?:，\d{3})+(?![\d，])")
_ACCENTED = re.compile(r"[\u00c0-\u024f\u1e00-\u1eff]")
_UNSIMPLE = re.compile(r"[\u4e00-\u9fff]")


def fold(text: str) -> str:
    """Full width to half, but for Chinese stops; traditional characters to simple ones; letters without accents."""
    text = _ZERO_WIDTH.sub("", text).translate(_ENDS_OF_LINE)
    text = _LINES.sub("\n", _BLANKS.sub(" ", text))  # or a pass could be slow on a long run of blanks
    text = _FRACTION.sub(_spell_fraction, _GAP.sub("，", text))
    text = _ENCLOSED.sub(lambda match: f"，{unicodedata.normalize('NFKC', match.group()).strip('().')}，", text)
    text = _SUPERSCRIPT.sub(lambda match: "^" + match.group().translate(_SUPERSCRIPTS), text).translate(_FORMS)
    parts = _KEPT.split(text)
    parts[::2] = [unicodedata.normalize("NFKC", part) for part in parts[::2]]
    text = _ACCENTED.sub(lambda match: unicodedata.normalize("NFKD", match.group())[0], "".join(parts))
    text = _GROUPED.sub(lambda match: match.group().replace("，", ","), _BETWEEN_DIGITS.sub(":", text))
    return _UNSIMPLE.sub(lambda match: _simple(match.group()), text)


def _spell_fraction(match: re.Match[str]) -> str:
    """1½ -> 1 1/2"""
    numerator, _, denominator = unicodedata.normalize("NFKC", match[2]).partition("⁄")
    return f"{match[1]} {numerator}/{denominator}" if match[1] else f"{numerator}/{denominator}"


@cache
def _simple(character: str) -> str:
    """The model has hardly heard traditional characters. Simple ones (all of GB 2312) never change: 乾隆, 著名."""
    try:
        character.encode("gb2312")
    except UnicodeEncodeError:
        return str(_simplifier()(character)).strip() or character
    return character


@cache
def _simplifier() -> kaldifst.TextNormalizer:
    """wetext's table alone: importing wetext would read its grammars of three languages, 35 MB in 0.3 s."""
    spec = importlib.util.find_spec("wetext")
    assert spec is not None  # a dependency of ours
    assert spec.origin is not None
    return kaldifst.TextNormalizer(str(Path(spec.origin).parent / "fsts" / "traditional_to_simple.fst"))
