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
    """In UTC. cronsim looks back from a whole minute and leaves that minute out."""
    edge = moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
    for start in CronSim(cron, edge.astimezone(zone), reverse=True):
        if start.astimezone(UTC) <= moment:
            return start.astimezone(UTC)
    return None


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ScheduleError(f"timeZone {name!r} is not known") from error
