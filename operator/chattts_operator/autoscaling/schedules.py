"""Floors for known peaks: which one holds at a moment. Pure; cron and its time zone are cronsim's and zoneinfo's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError


class ScheduleError(ValueError):
    """Cron fields or a time zone that cannot be understood."""


@dataclass(frozen=True, slots=True)
class Schedule:
    name: str
    cron: str
    time_zone: str
    duration_seconds: int
    min_replicas: int


@dataclass(frozen=True, slots=True)
class Floor:
    name: str
    replicas: int
    until: datetime  # in the schedule's own time zone


def check(schedule: Schedule) -> None:
    """Raises ScheduleError."""
    try:
        CronSim(schedule.cron, datetime(2000, 1, 1, tzinfo=_zone(schedule.time_zone)))
    except CronSimError as error:
        raise ScheduleError(f"cron {schedule.cron!r}: {error}") from error


def floor_at(schedules: Iterable[Schedule], now: float) -> Floor | None:
    """The highest floor that holds at `now`, seconds since the epoch; of equal ones the one that holds longest.

    Hours count as they pass: a floor of two hours over a change of the clocks lasts two hours.
    """
    floors = [floor for schedule in schedules if (floor := _floor(schedule, now)) is not None]
    return max(floors, key=lambda floor: (floor.replicas, floor.until), default=None)


def _floor(schedule: Schedule, now: float) -> Floor | None:
    zone = _zone(schedule.time_zone)
    moment = datetime.fromtimestamp(now, UTC)
    begun = _last_start(schedule.cron, zone, moment)
    if begun is None:
        return None
    until = begun + timedelta(seconds=schedule.duration_seconds)
    return Floor(schedule.name, schedule.min_replicas, until.astimezone(zone)) if moment < until else None


def _last_start(cron: str, zone: ZoneInfo, moment: datetime) -> datetime | None:
    """In UTC. cronsim counts back from the wall clock, and in the hour that autumn repeats the clock reads less
    than it has read already: what it read before is looked back from too."""
    local = moment.replace(microsecond=1).astimezone(zone)  # a part of a second: this second is looked at as well
    edges = [local]
    if local.fold:
        edges.append(local + ((local.replace(fold=0).utcoffset() or timedelta()) - (local.utcoffset() or timedelta())))
    starts = [start for edge in edges if (start := _last_before(cron, edge, moment)) is not None]
    return max(starts, default=None)


def _last_before(cron: str, edge: datetime, moment: datetime) -> datetime | None:
    """At `moment` at the latest. A start that repeats ends the search: the event loop must not hang on a calendar."""
    previous = None
    for found in CronSim(cron, edge, reverse=True):
        start = found.astimezone(UTC)
        if start <= moment:
            return start
        if start == previous:
            return None
        previous = start
    return None


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ScheduleError(f"timeZone {name!r} is not known") from error
