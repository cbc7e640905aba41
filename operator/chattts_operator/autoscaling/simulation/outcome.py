"""What a run came to: counts while it runs, and the figures and the timeline at its end. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

INTERVAL = 15.0  # seconds; requests count where they were first asked for
BAD_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Point:
    """One tick."""

    time: float
    load: float  # requests per second that were asked for, as the scenario says
    desired: int
    ready: int
    p99: float | None  # as Prometheus shows it, seconds
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Shares are in percent of requests, each counted once, however often it was tried."""

    policy: str
    load: str
    seconds: float
    requests: int
    late: int
    refused: int  # for good, after all tries
    refusals: int  # single answers 429
    violated_seconds: float  # of intervals in which more than 1 % were late or refused
    replica_hours: float
    cost: float | None
    peak: int
    ups: int
    downs: int
    flaps: int  # changes of direction
    timeline: tuple[Point, ...] = ()

    @property
    def bad_percent(self) -> float:
        return 100 * (self.late + self.refused) / self.requests if self.requests else 0.0

    def as_json(self, timeline: bool = True) -> dict[str, Any]:
        figures: dict[str, Any] = {
            "policy": self.policy,
            "load": self.load,
            "seconds": self.seconds,
            "requests": self.requests,
            "late": self.late,
            "refused": self.refused,
            "refusals": self.refusals,
            "badPercent": round(self.bad_percent, 3),
            "violatedSeconds": self.violated_seconds,
            "replicaHours": round(self.replica_hours, 3),
            "cost": None if self.cost is None else round(self.cost, 2),
            "peak": self.peak,
            "ups": self.ups,
            "downs": self.downs,
            "flaps": self.flaps,
        }
        if timeline:
            figures["timeline"] = [
                {
                    "second": round(point.time, 1),
                    "load": round(point.load, 3),
                    "desired": point.desired,
                    "ready": point.ready,
                    "p99": None if point.p99 is None else round(point.p99, 3),
                    "reason": point.reason,
                }
                for point in self.timeline
            ]
        return figures


@dataclass(slots=True)
class Tally:
    slo: float
    late: int = 0
    refused: int = 0
    refusals: int = 0
    served: int = 0
    replica_seconds: float = 0.0
    timeline: list[Point] = field(default_factory=list)
    _bad: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    _all: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def answered(self, born: float, now: float) -> None:
        """Second 0 is the begin; what came before is not counted."""
        if born < 0:
            return
        is_late = now - born > self.slo
        self.served += 1
        self.late += is_late
        self._count(born, is_late)

    def given_up(self, born: float) -> None:
        if born < 0:
            return
        self.refused += 1
        self._count(born, True)

    def _count(self, born: float, bad: bool) -> None:
        interval = int(born // INTERVAL)
        self._all[interval] += 1
        self._bad[interval] += bad

    def outcome(self, policy: str, load: str, seconds: float, price: float | None) -> Outcome:
        desired = [point.desired for point in self.timeline]
        moves = [later - earlier for earlier, later in pairwise(desired) if later != earlier]
        broken = sum(self._bad[interval] > BAD_SHARE * count for interval, count in self._all.items())
        hours = self.replica_seconds / 3600
        return Outcome(
            policy=policy,
            load=load,
            seconds=seconds,
            requests=self.served + self.refused,
            late=self.late,
            refused=self.refused,
            refusals=self.refusals,
            violated_seconds=broken * INTERVAL,
            replica_hours=hours,
            cost=None if price is None else hours * price,
            peak=max(desired, default=0),
            ups=sum(move > 0 for move in moves),
            downs=sum(move < 0 for move in moves),
            flaps=sum((one > 0) != (other > 0) for one, other in pairwise(moves)),
            timeline=tuple(self.timeline),
        )


def mean(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Of runs that differ in their seed."""
    count = len(outcomes)
    return {
        "badPercent": sum(one.bad_percent for one in outcomes) / count,
        "replicaHours": sum(one.replica_hours for one in outcomes) / count,
        "violatedSeconds": sum(one.violated_seconds for one in outcomes) / count,
        "peak": sum(one.peak for one in outcomes) / count,
        "changes": sum(one.ups + one.downs for one in outcomes) / count,
        "flaps": sum(one.flaps for one in outcomes) / count,
    }
