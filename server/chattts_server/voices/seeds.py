"""A voice drawn by a number: the same on every replica, after every restart and in every release. Pure."""

from __future__ import annotations

import numpy as np

from chattts_server.engine.nouns import Hello, Voice

MAX_SEED = 10**18 - 1
DEFAULT = "default"
# OpenAI's names, so that stock clients work; each is a seed of ours, not a likeness of theirs.
NAMED_SEEDS = {
    DEFAULT: 2, "alloy": 11, "ash": 12, "ballad": 13, "coral": 14, "echo": 15, "fable": 16, "nova": 17, "onyx": 18,
    "sage": 19, "shimmer": 20, "verse": 21, "marin": 22, "cedar": 23,
}  # fmt: skip


def voice_of_seed(seed: int, hello: Hello) -> Voice:
    """A speaker from the model's own distribution, in halves as ChatTTS's are, so that its string is this voice.

    numpy promises Philox's bits for ever, but not what its distributions make of them: hence our own normals.
    """
    std = np.frombuffer(hello.speaker_std, "<f4").astype(np.float64)
    mean = np.frombuffer(hello.speaker_mean, "<f4").astype(np.float64)
    halves = (_normals(seed, len(std)) * std + mean).astype("<f2")
    return Voice(embedding=halves.astype("<f4").tobytes())


def _normals(seed: int, count: int) -> np.ndarray:
    """Box and Muller: two uniforms of 53 bits make two normals; the first uniform is never 0."""
    raw = np.random.Philox(key=seed).random_raw(2 * -(-count // 2)).reshape(2, -1) >> np.uint64(11)
    radius = np.sqrt(-2 * np.log((raw[0] + 1.0) / 2.0**53))
    angle = 2 * np.pi * (raw[1] / 2.0**53)
    normals: np.ndarray = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
    return normals
