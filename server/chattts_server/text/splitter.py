"""Long text in pieces that one row can carry, and how long each will sound. Pure; order is kept, nothing is lost."""

from __future__ import annotations

import re

from chattts_server.text import tags

# Seconds of speech per character, from ChatTTS at its usual speed; refined online by a later issue.
SECONDS_PER_CHINESE, SECONDS_PER_OTHER, SECONDS_PER_STOP, SECONDS_PER_TAG = 0.23, 0.07, 0.25, 0.3
PIECE_SECONDS = 12.0
# The first piece of a long text is short: its refined text is there sooner, and a batch makes the rest meanwhile.
FIRST_SECONDS = 5.0
SHORT_SECONDS = 1.5  # the model speaks such a short piece badly: it joins a neighbour, even beyond the limit
# Between pieces, silence: a break tag would leave its length to the weights and to chance, and cost steps.
PAUSE_AFTER = {"。": 0.3, ".": 0.3, "，": 0.12, ",": 0.12, "、": 0.12}
_SENTENCE = re.compile(r"[^。.]*[。.]+ ?|[^。.]+")
_CLAUSE = re.compile(r"[^，、,]*[，、,]+ ?|[^，、,]+")
_WORD = re.compile(r"\[[a-z_0-9]{1,12}\]|[A-Za-z]{1,60} ?|.", re.DOTALL)
_CHINESE = re.compile("[\u4e00-\u9fff]")
_STOP = re.compile("[，。、,.]")


def split(text: str, piece_seconds: float = PIECE_SECONDS, first_seconds: float = FIRST_SECONDS) -> list[str]:
    """Whole sentences where they fit, else clauses, else words, else characters; neighbours that fit go together.

    A piece is predicted to last `piece_seconds` plus SHORT_SECONDS at most, and the first of several `first_seconds`
    where a stop allows it. A text that fits into one piece stays whole.
    """
    first_seconds = min(first_seconds, piece_seconds)
    if predicted_seconds(text) <= min(piece_seconds, max(first_seconds, SHORT_SECONDS)):
        return [text.strip()] if text.strip() else []
    first, rest = _first(text, first_seconds) if predicted_seconds(text) > piece_seconds else ("", text)
    pieces = _packed(rest, piece_seconds)
    if len(pieces) > 1 and predicted_seconds(pieces[-1]) < SHORT_SECONDS:
        pieces[-2:] = [pieces[-2] + pieces[-1]]
    return [piece.strip() for piece in (first, *pieces) if piece.strip()]


def pause_after(piece: str) -> float:
    """Seconds of silence before the next piece; none where a clause had to be cut."""
    return PAUSE_AFTER.get(tags.without(piece).rstrip()[-1:], 0.0)


def predicted_seconds(text: str) -> float:
    spoken = tags.without(text)
    chinese, stops = len(_CHINESE.findall(spoken)), len(_STOP.findall(spoken))
    seconds = chinese * SECONDS_PER_CHINESE + stops * SECONDS_PER_STOP + (len(spoken) - chinese) * SECONDS_PER_OTHER
    return max(0.5, seconds + (len(tags.divide(text)) // 2) * SECONDS_PER_TAG)


def _first(text: str, limit: float) -> tuple[str, str]:
    """The opening that is spoken first: whole clauses of the first sentence, as many as fit; none: no opening."""
    sentence = _SENTENCE.match(text)
    if sentence is None:
        return "", text
    opening = sentence.group()
    if predicted_seconds(opening) > limit:
        opening = ""
        for clause in _CLAUSE.finditer(sentence.group()):
            if predicted_seconds(opening + clause.group()) > limit:
                break
            opening += clause.group()
    return (opening, text[len(opening) :]) if predicted_seconds(opening) >= SHORT_SECONDS else ("", text)


def _packed(text: str, limit: float) -> list[str]:
    pieces: list[str] = []
    for part in _parts(text, limit):
        if pieces and predicted_seconds(pieces[-1] + part) <= limit:
            pieces[-1] += part
        else:
            pieces.append(part)
    return pieces


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
    for word in _WORD.findall(clause):
        if runs[-1] and predicted_seconds(runs[-1] + word) > limit:
            runs.append("")
        runs[-1] += word
    return runs
