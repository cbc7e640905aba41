"""The characters that the model has learnt, and what becomes of all others. Pure; words are read already.

ChatTTS itself deletes whatever is not a simple or traditional character of the basic block, a Latin letter, a space or
one of `，。、,.`; here nothing else is left, so nothing is deleted there, and what is left out is counted.
"""

from __future__ import annotations

import re

from chattts_server.text.language import Language

_ENDS, _PAUSES = "!?。.！？…", ";:,，；：()（）<>《》「」『』【】[]{}〈〉〔〕—–-/\\|~·・•"
_SILENT = "\"'`“”‘’„‚«»‹›^\u200b\ufeff\u200d\ufe0f"  # marks that no reader would speak
_ALLOWED = re.compile(r"[\u4e00-\u9fffA-Za-z，。、,. ]+")
_STOPS = re.compile(r"[，。、,. ]+")


def _table(language: Language) -> dict[int, str]:
    end, pause = ("。", "，") if language == "zh" else (".", ",")
    table = {ord(character): end for character in _ENDS} | {ord(character): pause for character in _PAUSES}
    table |= {ord(character): "" for character in _SILENT}
    return table | {ord("、"): "、" if language == "zh" else ","}


_TABLES: dict[Language, dict[int, str]] = {"zh": _table("zh"), "en": _table("en")}
_INNER_HYPHEN = re.compile(r"(?<=[A-Za-z])-(?=[A-Za-z])")


def restrict(text: str, language: Language) -> tuple[str, int]:
    """(text of allowed characters only, how many characters were left out that no mark of punctuation is)."""
    text = text.replace("\n", "。" if language == "zh" else ". ")
    text = _INNER_HYPHEN.sub(" ", text.replace("_", " "))
    text = re.sub(r"\s+", " ", text.translate(_TABLES[language]))
    allowed = "".join(_ALLOWED.findall(text))
    return allowed, len(text) - len(allowed)


def tidy(text: str) -> str:
    """One stop where there were several, none at the start, single spaces, and no space before a stop."""
    text = _STOPS.sub(_strongest, text)
    text = re.sub(r"(?<=[\u4e00-\u9fff]) (?=[\u4e00-\u9fff])", "", text)
    return text.strip().lstrip("，。、,. ")


def _strongest(match: re.Match[str]) -> str:
    """Of several stops the one that ends a sentence, else the first; English ones keep a space behind them."""
    stops = match.group().replace(" ", "")
    if not stops:
        return " "
    stop = next((one for one in stops if one in "。."), stops[0])
    return stop + (" " if stop in ",." else "")
