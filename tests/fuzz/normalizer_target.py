"""What atheris runs: any text is read and split without an error, in bounded time and memory, into what may be spoken.

python tests/fuzz/normalizer_target.py -max_total_time=60 [corpus folder]
"""

from __future__ import annotations

import re
import resource
import sys
import time

import atheris

with atheris.instrument_imports(include=["chattts_server.text"]):
    from chattts_server.text import splitter, tags
    from chattts_server.text.normalizer import normalize, pronounceable

SECONDS_PER_CHARACTER, SECONDS_AT_LEAST = 0.1 / 1000, 0.05  # instrumented code is slow, and so is a busy machine
MAX_GROWTH_MB = 50
ALLOWED = re.compile(r"[\u4e00-\u9fffA-Za-z，。、,. ]*")
CHOICES = ("auto", "zh", "en")


def check(data: bytes) -> None:
    choice = CHOICES[data[0] % 3] if data else "auto"
    text = data[1:].decode("utf-8", errors="surrogateescape")[:10_000]
    began = time.process_time()
    spoken = normalize(text, choice)
    pieces = splitter.split(pronounceable(spoken.text))
    elapsed = time.process_time() - began
    assert elapsed < SECONDS_AT_LEAST + 10 * SECONDS_PER_CHARACTER * len(text), f"{elapsed} s for {len(text)}"
    assert ALLOWED.fullmatch(tags.without(spoken.text)), "a character that the model does not know"
    assert 0 <= spoken.dropped <= 4 * len(text), "more left out than there was"
    assert len(spoken.text) <= 40 * len(text), "the reading has no bound"
    kept = "".join(pieces).replace(" ", "")
    assert kept == pronounceable(spoken.text).replace(" ", ""), "the pieces are not the text"
    longest = splitter.PIECE_SECONDS + splitter.SHORT_SECONDS
    assert all(splitter.predicted_seconds(piece) <= longest for piece in pieces), "a piece has no bound"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - BASELINE_MB
    assert grown < MAX_GROWTH_MB, f"{grown} MB more than at the start"


def warm_up() -> float:
    """Caches are filled and the corpus is read; returns the memory from which growth counts, in MB."""
    for text in ("為2026年1月2日¥3.5，10%～20kg", "On 3 May 2020 I paid $2.50; see www.example.com"):
        normalize(text)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 + 200  # the fuzzer's own tables come on top


BASELINE_MB = warm_up()

if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
