"""Abbreviations and contractions of English, written out. Pure. They go first: their full stops end no sentence."""

from __future__ import annotations

import re

from chattts_server.text.language import Language

_TITLES = {
    "mr": "Mister", "mrs": "Missus", "ms": "Miss", "dr": "Doctor", "prof": "Professor", "jr": "Junior", "sr": "Senior",
    "st": "Saint", "gen": "General", "sgt": "Sergeant", "capt": "Captain", "lt": "Lieutenant",
}  # fmt: skip
_PHRASES = {
    "e.g.": "for example", "i.e.": "that is", "etc.": "et cetera", "vs.": "versus", "vs": "versus",
    "approx.": "approximately", "a.k.a.": "also known as", "dept.": "department", "inc.": "Incorporated",
    "ltd.": "Limited", "corp.": "Corporation", "w/o": "without", "w/": "with", "u.s.": "U S", "u.k.": "U K",
    "ph.d.": "P H D", "ext.": "extension", "c/o": "care of", "asap": "A S A P", "apt.": "apartment",
    "blvd.": "Boulevard", "ave.": "Avenue",
}  # fmt: skip
_TITLE = re.compile(r"\b(" + "|".join(_TITLES) + r")\. (?=[A-Z])", re.IGNORECASE)
_JUNIOR = re.compile(r"\b(jr|sr)\.", re.IGNORECASE)
_STREET = re.compile(r"(?<=[a-z]) (St|Rd)\.?(?= ?[,.;]|$)")
_PHRASE = re.compile(
    r"(?<![A-Za-z.])(" + "|".join(re.escape(phrase) for phrase in _PHRASES) + r")(?![A-Za-z])", re.IGNORECASE
)
_NOT = re.compile(r"\b([A-Za-z]+)n['’]t\b")
_IRREGULAR = {"wo": "will not", "ca": "can not", "sha": "shall not", "ai": "is not"}
_CONTRACTED = re.compile(r"(?<=[A-Za-z])['’](ll|re|ve|m)\b", re.IGNORECASE)
_FULL = {"ll": " will", "re": " are", "ve": " have", "m": " am"}
_WOULD = re.compile(r"(?<=[A-Za-z])['’]d\b(?=( (?:better|been|had|never|already|gone|just)\b)?)")


def read_abbreviations(text: str, language: Language) -> str:
    if language == "zh":
        return text
    text = _TITLE.sub(lambda match: _TITLES[match[1].lower()] + " ", text)
    text = _JUNIOR.sub(lambda match: _TITLES[match[1].lower()], text)
    text = _STREET.sub(lambda match: {"St": " Street", "Rd": " Road"}[match[1]], text)
    text = _PHRASE.sub(lambda match: _PHRASES[match[1].lower()], text)
    return read_contractions(text)


def read_contractions(text: str) -> str:
    """An apostrophe cannot be kept, and we'll without it is well. (It's and John's sound the same without.)"""
    text = _NOT.sub(lambda match: _negated(match[1]), text)
    text = _CONTRACTED.sub(lambda match: _FULL[match[1].lower()], text)
    return _WOULD.sub(lambda match: " had" if match[1] else " would", text)


def _negated(verb: str) -> str:
    full = _IRREGULAR.get(verb.lower(), f"{verb} not")
    return full.capitalize() if verb[0].isupper() and not full[0].isupper() else full
