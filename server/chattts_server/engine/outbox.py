"""Finished audio that waits to be sent, in chunks of at most a second, as far as credit goes. Knows no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from chattts_server.engine.nouns import SAMPLE_RATE, Chunk, Finish

CHUNK_SAMPLES = SAMPLE_RATE  # one second; a client that leaves costs at most this much of sending


@dataclass(slots=True)
class _Parcel:
    pcm: np.ndarray
    credit: int
    finish: Finish
    sent: int = 0
    chunks: int = 0


class Outbox:
    def __init__(self, send: Callable[[Chunk | Finish], None]) -> None:
        self._send = send
        self._parcels: dict[int, _Parcel] = {}

    @property
    def empty(self) -> bool:
        return not self._parcels

    def add(self, row_id: int, pcm: np.ndarray, credit: int, finish: Finish) -> None:
        self._parcels[row_id] = _Parcel(pcm, credit, finish)
        self._flush(row_id)

    def credit(self, row_id: int, samples: int) -> None:
        if row_id in self._parcels:
            self._parcels[row_id].credit += samples
            self._flush(row_id)

    def drop(self, row_id: int) -> None:
        self._parcels.pop(row_id, None)

    def _flush(self, row_id: int) -> None:
        parcel = self._parcels[row_id]
        while parcel.sent < len(parcel.pcm) and parcel.credit > 0:
            size = min(CHUNK_SAMPLES, parcel.credit, len(parcel.pcm) - parcel.sent)
            piece = parcel.pcm[parcel.sent : parcel.sent + size]
            self._send(Chunk(row_id, parcel.chunks, piece.astype("<f4").tobytes()))
            parcel.sent += size
            parcel.chunks += 1
            parcel.credit -= size
        if parcel.sent >= len(parcel.pcm):
            self._send(parcel.finish)
            del self._parcels[row_id]
