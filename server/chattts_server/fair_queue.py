"""Whose row goes to the engine next. Pure but for the callback of a row whose turn it is; knows no engine and no clock.

The engine takes rows in the order in which they come, so what one caller has too much of waits here: start-time fair
queueing by predicted audio seconds. A caller that comes rarely goes past the backlog of one that floods. See ADR 9.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


def places_for(rows: int) -> int:
    """Of an engine with so many slots: a few rows wait there, so that a free slot is taken at the next step."""
    return rows + 2 + rows // 4


@dataclass(slots=True, eq=False)
class Turn:
    caller: str
    cost: float  # predicted audio seconds
    start: Callable[[Turn], None]  # called once, when the turn has come
    state: Literal["waiting", "inside", "left"] = "waiting"


class FairQueue:
    """`places`: rows that the engine may have at once, a few more than it can batch, so that no slot is ever idle."""

    def __init__(self, places: int) -> None:
        self.places = places
        self._inside = 0
        self._waiting: list[tuple[float, int, Turn]] = []  # heap by start tag
        self._entered = 0
        self._now = 0.0  # virtual: the start tag of the last row that went in
        self._finish: dict[str, float] = {}  # caller -> virtual finish of its last row
        self._letting_in = False

    @property
    def waiting(self) -> int:
        return sum(turn.state == "waiting" for _, _, turn in self._waiting)

    def enter(self, caller: str, cost: float, start: Callable[[Turn], None]) -> Turn:
        turn = Turn(caller, cost, start)
        tag = max(self._now, self._finish.get(caller, 0.0))
        self._finish[caller] = tag + cost
        self._entered += 1
        heapq.heappush(self._waiting, (tag, self._entered, turn))
        self.let_in()
        return turn

    def leave(self, turn: Turn) -> None:
        """Its row needs the engine no more, or nobody waits for it any more. Harmless when repeated."""
        before, turn.state = turn.state, "left"
        if before == "inside":
            self._inside -= 1
        elif before == "waiting":  # it had nothing for its cost
            self._finish[turn.caller] = max(self._now, self._finish.get(turn.caller, 0.0) - turn.cost)
        self.let_in()

    def let_in(self) -> None:
        """As many as there are places. A start that fails leaves at once: not from within, or the stack would grow."""
        if self._letting_in:
            return
        self._letting_in = True
        try:
            while self._waiting and (self._inside < self.places or self._waiting[0][2].state == "left"):
                tag, _, turn = heapq.heappop(self._waiting)
                if turn.state == "left":
                    continue
                self._now = max(self._now, tag)
                turn.state = "inside"
                self._inside += 1
                turn.start(turn)
        finally:
            self._letting_in = False
        if not self._waiting and not self._inside:  # idle: what anybody had before counts no more
            self._finish.clear()
