"""Audio that waits to be sent, in chunks of at most a second, as far as each row's credit goes. Knows no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from chattts_server.engine.nouns import SAMPLE_RATE, Chunk, Finish
from chattts_server.engine.scheduler import Row

CHUNK_SAMPLES = SAMPLE_RATE  # one second; a client that leaves costs at most this much of sending


@dataclass(slots=True)
class _Parcel:
    row: Row
    pieces: list[np.ndarray] = field(default_factory=list)
    finish: Finish | None = None
    chunks: int = 0


class Outbox:
    def __init__(self, send: Callable[[Chunk | Finish], None]) -> None:
        self._send = send
        self._parcels: dict[int, _Parcel] = {}

    def add(self, row: Row, pcm: np.ndarray, finish: Finish | None = None) -> bool:
        """`finish` comes with a row's last audio. True: all of the row is sent."""
        parcel = self._parcels.setdefault(row.submit.id, _Parcel(row))
        if len(pcm):
            # What may wait is copied: it is a view of a whole pass, of all rows together.
            parcel.pieces.append(pcm if row.credit >= len(pcm) else pcm.copy())
        parcel.finish = finish
        return self.flush(row)

    def flush(self, row: Row) -> bool:
        """Sends what the row's credit allows. True: all of the row is sent."""
        parcel = self._parcels.get(row.submit.id)
        if parcel is None:
            return False
        while parcel.pieces and row.credit > 0:
            piece = parcel.pieces.pop(0)
            size = min(CHUNK_SAMPLES, row.credit, len(piece))
            if size < len(piece):
                parcel.pieces.insert(0, piece[size:])
            self._send(Chunk(row.submit.id, parcel.chunks, piece[:size].astype("<f4").tobytes()))
            parcel.chunks += 1
            row.credit -= size
        if parcel.pieces or parcel.finish is None:
            return False
        self._send(parcel.finish)
        del self._parcels[row.submit.id]
        return True

    def drop(self, row: Row) -> None:
        self._parcels.pop(row.submit.id, None)
