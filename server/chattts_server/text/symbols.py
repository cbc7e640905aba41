"""Signs that are read as words, and signs that only mark. Pure; numbers are read already."""

from __future__ import annotations

import re

from chattts_server.text.language import Language

_SYMBOLS = {
    "&": ("和", "and"), "+": ("加", "plus"), "=": ("等于", "equals"), "@": ("艾特", "at"), "%": ("百分号", "percent"),
    "‰": ("千分号", "per thousand"), "#": ("井号", "hash"), "*": ("星号", "star"), "×": ("乘", "times"),
    "÷": ("除以", "divided by"), "°": ("度", "degrees"), "¥": ("元", "yuan"), "$": ("美元", "dollars"),
    "€": ("欧元", "euros"), "£": ("英镑", "pounds"), "±": ("正负", "plus or minus"), "≈": ("约等于", "about"),
    "≠": ("不等于", "does not equal"), "≤": ("小于等于", "at most"), "≥": ("大于等于", "at least"),
    "√": ("根号", "square root of"), "∞": ("无穷大", "infinity"), "π": ("派", "pi"), "α": ("阿尔法", "alpha"),
    "β": ("贝塔", "beta"), "γ": ("伽马", "gamma"), "δ": ("德尔塔", "delta"), "Δ": ("德尔塔", "delta"),
    "θ": ("西塔", "theta"), "λ": ("兰姆达", "lambda"), "μ": ("缪", "mu"), "σ": ("西格玛", "sigma"),
    "Σ": ("西格玛", "sigma"), "φ": ("斐", "phi"), "ω": ("欧米伽", "omega"), "Ω": ("欧米伽", "omega"),
    "→": ("到", "to"), "⇒": ("得出", "implies"), "∈": ("属于", "in"), "∑": ("求和", "sum"),
    "^": ("的幂", "to the power"),
    "§": ("节", "section"), "₿": ("比特币", "bitcoin"),
}  # fmt: skip
_TABLES = {
    language: str.maketrans(
        {sign: words[place] if language == "zh" else f" {words[place]} " for sign, words in _SYMBOLS.items()}
    )
    for place, language in enumerate(("zh", "en"))
}
_TOPIC = re.compile(r"#([^#\s]{1,40})#")  # 微博's way; the signs only mark
_HEADING = re.compile(r"(?m)^ {0,3}#{1,6} ")  # Markdown
_EMPHASIS = re.compile(r"(\*{1,3})(?=[^\s*])([^*\n]{1,200})(?<=[^\s*])\1")
_BULLET = re.compile(r"(?m)^ {0,6}[*+] (?=\S)")
_COMPARED = re.compile(r"(?<=[\w。\u4e00-\u9fff]) {0,3}([<>])(=?) {0,3}(?=[\w\u4e00-\u9fff])")
_COMPARISONS = {
    "<": ("小于", "less than"), ">": ("大于", "greater than"), "<=": ("小于等于", "at most"),
    ">=": ("大于等于", "at least"),
}  # fmt: skip
_SHARP = re.compile(r"(?<![A-Za-z])([CF])#")
_PLUSES = re.compile(r"(?<![A-Za-z])(C)\+\+")
_DOT = re.compile(r"(?<=[A-Za-z\u4e00-\u9fff])\.(?=[A-Za-z])")
_INITIALS = re.compile(r"(?<![A-Za-z])(?:[A-Za-z]\.){2,8}(?:[A-Za-z](?![A-Za-z]))?")


def read_symbols(text: str, language: Language) -> str:
    text = _EMPHASIS.sub(r"\2", _BULLET.sub("", _HEADING.sub("", _TOPIC.sub(r"，\1，", text))))
    text = _SHARP.sub(r"\1 sharp", _PLUSES.sub(r"\1加加" if language == "zh" else r"\1 plus plus", text))
    text = _COMPARED.sub(lambda match: _compare(match[1] + match[2], language), text)
    text = _INITIALS.sub(lambda match: " ".join(match.group().replace(".", "")) + " ", text)
    text = _DOT.sub("点" if language == "zh" else " dot ", text)
    return text.translate(_TABLES[language])


def _compare(sign: str, language: Language) -> str:
    chinese, english = _COMPARISONS[sign]
    return chinese if language == "zh" else f" {english} "
