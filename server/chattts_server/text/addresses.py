"""URLs, e-mail addresses and @names, spelt out character by character where they are not words. Pure."""

from __future__ import annotations

import re

from chattts_server.text.language import Language
from chattts_server.text.numbers import DIGITS, ENGLISH_DIGITS

_LABEL = r"[A-Za-z0-9][A-Za-z0-9-]{0,62}"
_ENDINGS = (
    "com|cn|net|org|edu|gov|io|ai|dev|app|me|tv|cc|xyz|co|uk|jp|de|fr|eu|us|hk|tw|top|info|shop|tech|online|site|wiki"
)
_REST = r"(?::\d{1,5})?(?:[/?#][A-Za-z0-9\-._~/?#@!$&'()*+,;=%:]*)?"  # port, path, query
_EMAIL = re.compile(rf"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{{1,64}}@(?:{_LABEL}\.){{1,4}}[A-Za-z]{{2,24}}")
_URL = re.compile(
    rf"(?<![A-Za-z0-9@._-])(?:(?:https?|ftp)://[A-Za-z0-9\-._~:/?#@!$&'()*+,;=%\[\]]+"
    rf"|www\.(?:{_LABEL}\.){{0,4}}{_LABEL}{_REST}"
    rf"|(?:{_LABEL}\.){{1,4}}(?:{_ENDINGS})(?![A-Za-z0-9-]){_REST})",
    re.IGNORECASE,
)
_SCHEME = re.compile("(https?|ftp)://", re.IGNORECASE)
_TOKEN = re.compile(r"[A-Za-z]+|\d|[^A-Za-z\d]")
_MARKS = {
    ".": ("点", "dot"), "/": ("斜杠", "slash"), "@": ("艾特", "at"), "-": ("杠", "dash"), "_": ("下划线", "underscore"),
    ":": ("冒号", "colon"), "?": ("问号", "question mark"), "=": ("等于", "equals"), "&": ("和", "and"),
    "#": ("井号", "hash"), "%": ("百分号", "percent"), "+": ("加", "plus"), "~": ("波浪号", "tilde"),
}  # fmt: skip
_SPELT = {"http": "H T T P", "https": "H T T P S", "ftp": "F T P", "www": "W W W", "cn": "C N", "io": "I O"}


def read_addresses(text: str, language: Language) -> str:
    text = _EMAIL.sub(lambda match: _spell(match.group(), language), text)
    return _URL.sub(lambda match: _spell_url(match.group(), language), text)


def _spell_url(url: str, language: Language) -> str:
    bare = url.rstrip(".,;:!?)]'")  # these end the sentence, not the address
    scheme = _SCHEME.match(bare)
    read = _spell(bare[scheme.end() :] if scheme else bare, language)
    if scheme:
        read = f"{_SPELT[scheme[1].lower()]},{read}"
    return f" {read}{url[len(bare) :]}" if language == "en" else read + url[len(bare) :]


def _spell(address: str, language: Language) -> str:
    tokens = _TOKEN.findall(address.rstrip("/"))
    if language == "en":
        return f" {' '.join(_english(token) for token in tokens)} "
    return "".join(_chinese(token) for token in tokens)


def _english(token: str) -> str:
    if token.isdigit():
        return ENGLISH_DIGITS[int(token)]
    return _MARKS[token][1] if token in _MARKS else _SPELT.get(token.lower(), token)


def _chinese(token: str) -> str:
    if token.isdigit():
        return DIGITS[int(token)]
    return _MARKS[token][0] if token in _MARKS else _SPELT.get(token.lower(), token)
