"""Which language a stretch of text is read in. Pure; knows no number and no tag."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Language = Literal["zh", "en"]
Choice = Literal["zh", "en", "auto"]  # what a request may ask for
ENGLISH_WORDS = 4  # so many words in a row are a phrase of their own; fewer are words within Chinese
HAN = "\u4e00-\u9fff"

_HAN = re.compile(f"[{HAN}]")
_WORD = re.compile(r"""(?<![^\s("'“])[A-Za-z]+(?:['’-][A-Za-z]+)*(?![^\s,.;:!?)"'”])""")
_CHINESE_MARK = re.compile("[℃￥％，。！？；：（）、]")  # who writes in Chinese writes these
_LETTER = re.compile("[A-Za-z]")
_WITHOUT_HAN = re.compile(f"[^{HAN}]+")
_HARD_STOP = re.compile(r"[，。！？；：、（）《》“”\n]")


@dataclass(frozen=True, slots=True)
class Segment:
    text: str
    language: Language


def main_language(text: str, choice: Choice = "auto") -> Language:
    """By more Chinese characters or more English words; text of neither is read as Chinese, the model's first language
    (`7` as 七), unless the request says otherwise."""
    if choice != "auto":
        return choice
    chinese, english = len(_HAN.findall(text)), len(_WORD.findall(text))
    if chinese or _CHINESE_MARK.search(text):
        return "en" if english > chinese else "zh"
    return "en" if _LETTER.search(text) else "zh"


def segments(text: str, main: Language, choice: Choice = "auto") -> list[Segment]:
    """Stretches of one language; joined they are `text`. A number belongs to the language around it."""
    if choice != "auto" or not _HAN.search(text):
        return [Segment(text, main)] if text else []
    found: list[Segment] = []
    end = 0
    for run in _WITHOUT_HAN.finditer(text):
        for start, stop in _phrases(run.group()):
            found += _chinese(text[end : run.start() + start])
            found.append(Segment(text[run.start() + start : run.start() + stop], "en"))
            end = run.start() + stop
    return found + _chinese(text[end:])


def _chinese(text: str) -> list[Segment]:
    return [Segment(text, "zh")] if text else []


def _phrases(run: str) -> list[tuple[int, int]]:
    """English phrases within a run without Chinese characters: (start, end), from their first word or number on."""
    found: list[tuple[int, int]] = []
    start = 0
    for stop in (*(mark.start() for mark in _HARD_STOP.finditer(run)), len(run)):
        part = run[start:stop]
        words = list(_WORD.finditer(part))
        if len(words) >= ENGLISH_WORDS:
            lead = part[: words[0].start()]
            # A number that touches the Chinese before it belongs there: 共5 I love you very much.
            apart = start or not lead or lead[0].isspace()
            found.append((start + (len(lead) - len(lead.lstrip()) if apart else words[0].start()), stop))
        start = stop + 1
    return found
