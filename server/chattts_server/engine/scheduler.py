"""Which waiting rows make the next batch. Pure: (rows, now) -> plan. Knows no model and no socket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chattts_server.engine.nouns import Submit

# A batch runs until its longest row ends, so rows share one only when their limits are within this factor.
LENGTH_RATIO = 2.0


@dataclass(slots=True, eq=False)
class Row:
    """A row that waits. Filled by process.py; `credit` and `cancelled` change while it waits or runs."""

    submit: Submit
    arrived: float  # monotonic
    credit: int
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    batch: list[Row]
    expired: list[Row]
    waiting: list[Row]  # in their old order


def plan(rows: Sequence[Row], now: float, max_rows: int) -> Plan:
    """The oldest row that has credit leads, so none starves; the rows that agree with it ride along.

    There is no timed wait: rows gather by themselves while the engine is busy, and an idle engine answers at once.
    """
    alive = [row for row in rows if not row.cancelled]
    expired = [row for row in alive if is_expired(row, now)]
    ready = [row for row in alive if not is_expired(row, now)]
    leader = next((row for row in ready if row.credit > 0), None)
    if leader is None:
        return Plan([], expired, ready)
    riders = [row for row in ready if row is not leader and row.credit > 0 and agrees(leader.submit, row.submit)]
    batch = [leader, *riders[: max_rows - 1]]
    return Plan(batch, expired, [row for row in ready if row not in batch])


def is_expired(row: Row, now: float) -> bool:
    return row.submit.deadline is not None and now >= row.submit.deadline


def agrees(leader: Submit, other: Submit) -> bool:
    """One batch has one set of sampling parameters and one audio prompt. A seeded row runs alone: its noise must not
    depend on its neighbours."""
    if leader.sampling.seed is not None or leader.sampling != other.sampling:
        return False
    if leader.voice.codes or other.voice.codes:
        return False
    short, long = sorted((leader.limits.max_steps, other.limits.max_steps))
    return long <= short * LENGTH_RATIO
