"""Which voice a name means. Pure: the same name gives the same speaker on every replica. Knows no request."""

from __future__ import annotations

import re

import numpy as np

from chattts_server.engine.nouns import Hello, Voice
from chattts_server.errors import InvalidRequest

DEFAULT = "default"
# OpenAI's names, so that stock clients work; each is a seed of ours, not a likeness of theirs.
NAMED_SEEDS = {
    DEFAULT: 2, "alloy": 11, "ash": 12, "ballad": 13, "coral": 14, "echo": 15, "fable": 16, "nova": 17, "onyx": 18,
    "sage": 19, "shimmer": 20, "verse": 21,
}  # fmt: skip
_SEED = re.compile(r"seed:(\d{1,18})", re.ASCII)


def seed_of(name: str) -> int:
    if (match := _SEED.fullmatch(name)) is not None:
        return int(match[1])
    if name in NAMED_SEEDS:
        return NAMED_SEEDS[name]
    raise InvalidRequest(
        f"unknown voice; known are {', '.join(NAMED_SEEDS)} and seed:<number>", code="unknown_voice", param="voice"
    )


def voice_of(name: str, hello: Hello) -> Voice:
    """A speaker drawn from the model's own distribution by a generator that belongs to this call alone."""
    std = np.frombuffer(hello.speaker_std, "<f4")
    mean = np.frombuffer(hello.speaker_mean, "<f4")
    noise = np.random.Generator(np.random.Philox(seed_of(name))).standard_normal(len(std), dtype=np.float32)
    return Voice(embedding=(noise * std + mean).astype("<f4").tobytes())
