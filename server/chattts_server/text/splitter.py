"""Long text in pieces that one row can carry, and how long each will sound. Pure; order is kept, nothing is lost."""

from __future__ import annotations

import re

# Seconds of speech per character, from ChatTTS at its usual speed; refined online by a later issue.
SECONDS_PER_CHINESE, SECONDS_PER_OTHER, SECONDS_PER_STOP = 0.23, 0.07, 0.25
PIECE_SECONDS = 12.0
_SENTENCE = re.compile(r"[^。.]*[。.]+ ?|[^。.]+")
_CLAUSE = re.compile(r"[^，、,]*[，、,]+ ?|[^，、,]+")


def predicted_seconds(text: str) -> float:
    chinese = sum("\u4e00" <= character <= "\u9fff" for character in text)
    stops = sum(character in "，。、,." for character in text)
    return max(
        0.5, chinese * SECONDS_PER_CHINESE + stops * SECONDS_PER_STOP + (len(text) - chinese) * SECONDS_PER_OTHER
    )


def split(text: str, piece_seconds: float = PIECE_SECONDS) -> list[str]:
    """Whole sentences where they fit, else clauses, else words, else characters; neighbours that fit go together."""
    pieces: list[str] = []
    for part in _parts(text, piece_seconds):
        if pieces and predicted_seconds(pieces[-1] + part) <= piece_seconds:
            pieces[-1] += part
        else:
            pieces.append(part)
    return [piece.strip() for piece in pieces if piece.strip()]


def _parts(text: str, limit: float) -> list[str]:
    parts: list[str] = []
    for sentence in _SENTENCE.findall(text):
        if predicted_seconds(sentence) <= limit:
            parts.append(sentence)
            continue
        for clause in _CLAUSE.findall(sentence):
            parts += [clause] if predicted_seconds(clause) <= limit else _runs(clause, limit)
    return parts


def _runs(clause: str, limit: float) -> list[str]:
    """A clause without a stop: cut at spaces, or anywhere, and never inside a control tag."""
    runs = [""]
    for word in re.findall(r"\[[a-z_]+\]|[A-Za-z]{1,60} ?|.", clause):
        if runs[-1] and predicted_seconds(runs[-1] + word) > limit:
            runs.append("")
        runs[-1] += word
    return runs
