"""What a listener would have heard: gaps between chunks, and when the player had nothing left. Pure numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

Chunks = Sequence[tuple[float, float]]  # (when it came, seconds of audio in it), in order


def underruns(chunks: Chunks, speed: float) -> int:
    """How often a player that starts with the first chunk and plays `speed` times real time has to wait."""
    count = 0
    empty_at = chunks[0][0]  # when everything that has come is played
    for when, seconds in chunks:
        if when > empty_at:
            count += 1
        empty_at = max(empty_at, when) + seconds / speed
    return count


def gaps(chunks: Chunks) -> list[float]:
    """Seconds between one chunk and the next."""
    return [later - earlier for (earlier, _), (later, _) in pairwise(chunks)]
