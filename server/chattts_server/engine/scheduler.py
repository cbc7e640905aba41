"""Which rows join, are prefilled, step and are vocoded. Pure: (rows, now) -> plan. Knows no model and no socket."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chattts_server.engine.nouns import UNLIMITED_CREDIT, FinishReason, RowPhase, Submit
from chattts_server.engine.speech_model import LOOK_AHEAD_STEPS

# Prompt chunks between two decode steps: a long prompt delays running streams by no more than this.
PREFILLS_PER_STEP = 2
# Small, so that there is audio soon; the next is as short, as there is little to play meanwhile; then doubling, as each
# chunk looks ahead again.
FIRST_CHUNK_STEPS = 8
LARGEST_CHUNK_STEPS = 96
HELD_CHUNK_STEPS = 128  # of a row that is wanted whole: large, but no mate waits long for it
MAX_RETRIES = 3  # of a row whose first step is its end
HALF_OF_UNLIMITED = UNLIMITED_CREDIT // 2


@dataclass(slots=True, eq=False)
class Row:
    """A row from its arrival to its last chunk. Filled by process.py."""

    submit: Submit
    arrived: float  # monotonic
    credit: int  # samples that may be sent
    slot: int | None = None  # None: it waits, or has left its slot
    joined: float | None = None  # monotonic
    prefills_left: int = 0
    prefilled: float | None = None  # monotonic
    vocode_seconds: float = 0.0  # of the passes that it took part in
    launched: int = 0  # steps that the model was told to make
    steps: int = 0  # made, as far as we have heard
    vocoded: int = 0  # steps given to the vocoder
    chunks: int = 0  # pieces given to the vocoder
    samples: int = 0  # made by it
    decoded: FinishReason | None = None  # set when its last step is made
    cancelled: bool = False
    seed: int = 0  # of its noise; set when it joins
    retries: int = 0

    @property
    def wanted_whole(self) -> bool:
        """Nobody listens before the end."""
        return self.credit > HALF_OF_UNLIMITED

    @property
    def waits(self) -> bool:
        return self.joined is None


@dataclass(frozen=True, slots=True)
class Plan:
    gone: list[Row]  # cancelled
    expired: list[Row]
    joining: list[tuple[Row, int]]  # with their slots
    prefilling: list[Row]  # with joining rows, which come next time
    stepping: list[Row]


def plan(rows: Iterable[Row], now: float, free_slots: Sequence[int]) -> Plan:
    """The oldest waiting rows join first, as far as there are slots. There is no timed wait and no batch to be full."""
    rows = list(rows)
    gone = [row for row in rows if row.cancelled]
    expired = [row for row in rows if not row.cancelled and is_expired(row, now)]
    alive = [row for row in rows if not row.cancelled and not is_expired(row, now)]
    waiting = [row for row in alive if row.waits and row.credit > 0]
    running = [row for row in alive if row.slot is not None and row.decoded is None]
    freed = [row.slot for row in (*gone, *expired) if row.slot is not None]
    lowest = sorted([*free_slots, *freed])  # rows in neighbouring slots share a product of attention
    return Plan(
        gone=gone,
        expired=expired,
        joining=list(zip(waiting, lowest, strict=False)),
        prefilling=[row for row in running if row.prefills_left][:PREFILLS_PER_STEP],
        stepping=[row for row in running if not row.prefills_left and row.launched < row.submit.limits.max_steps],
    )


def is_expired(row: Row, now: float) -> bool:
    """A deadline is one to the first audio."""
    return row.submit.deadline is not None and row.samples == 0 and now >= row.submit.deadline


def phase_of(row: Row) -> RowPhase:
    """Where a row is that has no audio yet, before it is vocoded."""
    if row.waits:
        return "queue"
    return "prefill" if row.prefills_left else "decode"


def retry_seed(seed: int, retry: int) -> int:
    """Other noise for each retry, and the same for each time that the row is asked for."""
    return (seed + retry * 0x9E3779B97F4A7C15) % 2**63  # far from the seeds that people choose


def wants_sound(row: Row) -> bool:
    """Whether a row's new steps are to be vocoded now."""
    if row.slot is None or row.steps == 0 or row.submit.stage == "text":
        return False
    if row.decoded is not None:
        return True
    new = row.steps - row.vocoded
    if row.wanted_whole or row.credit <= 0:  # nobody waits for it now, and it must not pile up either
        return new >= HELD_CHUNK_STEPS
    chunk = min(FIRST_CHUNK_STEPS << max(0, row.chunks - 1), LARGEST_CHUNK_STEPS)
    return new >= chunk + (LOOK_AHEAD_STEPS if row.chunks == 0 else 0)
