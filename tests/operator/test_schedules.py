"""Floors for known peaks and the hold: when they hold, over changes of the clocks too, and what decide does."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chattts_operator.autoscaling.cold_start import look_ahead
from chattts_operator.autoscaling.policy import decide
from chattts_operator.autoscaling.schedules import Schedule, floor_at
from chattts_operator.autoscaling.signals import ColdStart, Fleet, Metrics, Signals, State
from chattts_operator.observe import fleet_of, pod_of
from chattts_operator.spec import Autoscaling, InvalidSpec, OperatorDefaults, parse
from tests.operator.fakes import pod, tts_service

MORNING = {"name": "morning", "cron": "0 8 * * 1-5", "timeZone": "Asia/Shanghai", "durationSeconds": 7200}


def policy(**autoscaling: Any) -> Autoscaling:
    body = tts_service(autoscaling={"mode": "Operator", **autoscaling})
    return parse(body, OperatorDefaults(has_prometheus=True)).autoscaling


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def schedule(cron: str, zone: str = "UTC", seconds: int = 3600, replicas: int = 4, name: str = "s") -> Schedule:
    return Schedule(name, cron, zone, seconds, replicas)


@pytest.mark.parametrize(
    ("moment", "holds"),
    [
        ("2026-11-25T07:59:59+08:00", False),
        ("2026-11-25T08:00:00+08:00", True),
        ("2026-11-25T09:59:59+08:00", True),
        ("2026-11-25T10:00:00+08:00", False),
        ("2026-11-28T08:30:00+08:00", False),  # a Saturday
        ("2026-11-25T00:30:00+00:00", True),  # the same in UTC
    ],
)
def test_a_floor_holds_from_its_start_for_its_time(moment: str, holds: bool) -> None:
    floor = floor_at([schedule("0 8 * * 1-5", "Asia/Shanghai", 7200)], at(moment))
    assert (floor is not None) == holds


def test_over_a_change_of_the_clocks_it_lasts_as_long_as_it_says() -> None:
    """Berlin skips 02:00 to 03:00 on 29 March and has it twice on 25 October."""
    night = [schedule("0 1 * * *", "Europe/Berlin", 7200)]
    assert floor_at(night, at("2026-03-29T03:59:00+02:00")) is not None  # 01:59 after the start, 03:59 on the clock
    assert floor_at(night, at("2026-03-29T04:00:00+02:00")) is None
    assert floor_at(night, at("2026-10-25T02:59:00+02:00")) is not None  # starts 01:00 summer time
    assert floor_at(night, at("2026-10-25T02:01:00+01:00")) is None  # two hours have passed, though it is 02:01
    skipped = floor_at([schedule("30 2 * * *", "Europe/Berlin", 3600)], at("2026-03-29T03:10:00+02:00"))
    assert skipped is not None  # a start that the clocks leave out is not left out


@pytest.mark.parametrize(
    ("cron", "night", "start"),
    [
        ("30 2 * * *", "2026-03-29", "2026-03-29T01:00:00"),  # 02:30 is left out: begins at 03:00
        ("0 3 * * *", "2026-03-29", "2026-03-29T01:00:00"),
        ("59 1 * * *", "2026-03-29", "2026-03-29T00:59:00"),
        ("30 2 * * *", "2026-10-25", "2026-10-25T00:30:00"),  # the first 02:30, and not the second
        ("0 2 * * *", "2026-10-25", "2026-10-25T00:00:00"),
        ("59 2 * * *", "2026-10-25", "2026-10-25T00:59:00"),
        ("0 3 * * *", "2026-10-25", "2026-10-25T02:00:00"),
    ],
)
@pytest.mark.parametrize("seconds", [1800, 7200])
def test_minute_by_minute_through_the_nights_of_the_clocks(cron: str, night: str, start: str, seconds: int) -> None:
    floors, begun = [schedule(cron, "Europe/Berlin", seconds)], at(f"{start}+00:00")
    first = at(f"{night}T00:00:00+00:00") - 1800
    for now in (first + 60 * minute + second for minute in range(300) for second in (0.0, 59.5)):
        assert (floor_at(floors, now) is not None) == (begun <= now < begun + seconds), datetime.fromtimestamp(now, UTC)


@pytest.mark.parametrize("night", ["2026-03-29", "2026-10-25"])
def test_each_hour_means_each_that_passes(night: str) -> None:
    floors, first = [schedule("30 * * * *", "Europe/Berlin", 600)], at(f"{night}T00:00:00+00:00")
    held = [floor_at(floors, first + 60 * minute) is not None for minute in range(240)]
    assert held == [30 <= minute % 60 < 40 for minute in range(240)]


def test_the_highest_floor_counts_and_says_its_name() -> None:
    floors = [schedule("0 8 * * *", replicas=3, name="day"), schedule("30 8 * * *", replicas=6, name="peak")]
    assert floor_at(floors, at("2026-11-25T08:10:00+00:00")).name == "day"  # type: ignore[union-attr]
    floor = floor_at(floors, at("2026-11-25T08:40:00+00:00"))
    assert floor is not None
    assert (floor.name, floor.replicas) == ("peak", 6)


@given(
    st.sampled_from(["0 8 * * 1-5", "*/5 * * * *", "0 0 1 * *", "30 2 * * *"]),
    st.sampled_from(["UTC", "Europe/Berlin", "Asia/Shanghai", "America/New_York", "Australia/Lord_Howe"]),
    st.integers(60, 604_800),
    st.floats(1_700_000_000, 1_900_000_000),
)
def test_any_schedule_says_yes_or_no(cron: str, zone: str, seconds: int, now: float) -> None:
    floor = floor_at([schedule(cron, zone, seconds)], now)
    assert floor is None or now < floor.until.timestamp() <= now + seconds


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cron": "0 8 * *"}, "cron '0 8 * *'"),
        ({"cron": "0 25 * * *"}, "cron"),
        ({"timeZone": "Asia/Nowhere"}, "timeZone 'Asia/Nowhere'"),
        ({"timeZone": "../../etc/passwd"}, "timeZone"),
        ({"minReplicas": 9}, "must not be greater than spec.autoscaling.maxReplicas"),
    ],
)
def test_a_schedule_that_cannot_be_meant_is_a_problem(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSpec, match=r"schedules") as caught:
        policy(schedules=[{**MORNING, "minReplicas": 4, **change}])
    assert words in str(caught.value)


def test_schedules_are_acted_upon_in_mode_operator_and_named_elsewhere() -> None:
    defaults = OperatorDefaults(has_prometheus=True)
    schedules = [{**MORNING, "minReplicas": 4}]
    assert parse(tts_service(autoscaling={"mode": "Operator", "schedules": schedules}), defaults).ignored == ()
    ignored = parse(tts_service(autoscaling={"mode": "None", "schedules": schedules}), defaults).ignored
    assert ignored == ("autoscaling.schedules",)


# --- decide ---

PEAK = at("2026-11-25T08:30:00+08:00")
BEFORE = at("2026-11-25T07:30:00+08:00")
CALM = Metrics(1.0, 1.0, 1.0, 0.0, 0.5, 0.0, False, 1.0, 3.0, 100, 1.0)


def one(spec: Autoscaling, now: float, seen: Metrics = CALM, pods: Fleet | None = None, **state: Any) -> Any:
    pods = pods or Fleet(1, ready=1, ready_a_minute=1, last_ready_at=now - 900)
    return decide(spec, Signals(seen, pods), State(**state), now)


def test_a_floor_raises_and_says_which() -> None:
    spec = policy(schedules=[{**MORNING, "minReplicas": 4}])
    assert one(spec, BEFORE).desired == 1
    decision = one(spec, PEAK)
    assert (decision.desired, decision.reason) == (4, "Schedule")
    assert decision.message == "schedule morning: 4 until 10:00 CST"


def test_a_floor_holds_on_missing_data_and_without_a_pod() -> None:
    spec = policy(schedules=[{**MORNING, "minReplicas": 4}])
    assert one(spec, PEAK, Metrics()).desired == 4
    assert one(spec, PEAK, Metrics(), Fleet(1)).desired == 4
    assert one(spec, BEFORE, Metrics()).desired == 1
    stuck = one(spec, PEAK, Metrics(), Fleet(2, ready=1, ready_a_minute=1, unschedulable=1))
    assert stuck.desired == 2


def test_a_hold_is_stronger_than_a_floor_until_it_ends() -> None:
    hold = {"until": "2026-11-25T08:30:05+08:00", "by": "Li: test"}
    spec = policy(schedules=[{**MORNING, "minReplicas": 4}], hold=hold)
    held = one(spec, PEAK)
    assert (held.desired, held.reason) == (1, "Held")
    assert one(spec, PEAK + 5).desired == 4


# --- few GPUs: one pod at a time ---


def test_after_pods_could_not_be_placed_they_are_asked_for_one_at_a_time() -> None:
    spec, now = policy(targets={"qpsPerReplica": "1"}), PEAK
    busy = replace(CALM, offered=8.0, offered_5m=8.0, offered_30s=8.0)
    four = Fleet(4, ready=4, ready_a_minute=4, last_ready_at=now - 900)
    assert one(spec, now, busy, four).desired == 8
    probing = one(spec, now, busy, four, unschedulable_time=now - 299)
    assert (probing.desired, probing.limited) == (5, "Probing")
    waiting = one(spec, now, busy, replace(four, committed=5), unschedulable_time=now - 299)
    assert (waiting.desired, waiting.reason) == (5, "Probing")
    assert one(spec, now, busy, four, unschedulable_time=now - 300).desired == 8


# --- cold start ---


def test_a_cold_start_is_told_by_phase() -> None:
    body = pod("a", ready_at="2026-01-01T00:02:00Z", scheduled_at="2026-01-01T00:00:30Z")
    body["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    server = {"name": "server", "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:01:20Z"}}}
    body["status"]["containerStatuses"] = [server]
    deployment = {"metadata": {}, "spec": {"replicas": 1}}
    seen = fleet_of(deployment, [pod_of(body)], 0.0).cold_start
    assert seen is not None
    assert seen[1] == ColdStart(starting=40.0, pulling=50.0, placing=30.0)
    assert seen[1].seconds == 90.0
    server["restartCount"] = 1  # its first start is forgotten
    assert fleet_of(deployment, [pod_of(body)], 0.0).cold_start == (seen[0], ColdStart(90.0, placing=30.0))


def test_a_pod_of_three_days_that_flapped_teaches_no_cold_start() -> None:
    """A new operator knows no earlier Ready of it. Beside it a pod that was as slow as a start may be."""
    deployment = {"metadata": {}, "spec": {"replicas": 1}}
    flapped = pod_of(pod("a", ready_at="2026-01-04T00:00:00Z", scheduled_at="2026-01-01T00:00:00Z"))
    slow = pod_of(pod("b", ready_at="2026-01-01T00:15:00Z", scheduled_at="2026-01-01T00:00:00Z"))
    assert fleet_of(deployment, [flapped], 0.0, 900).cold_start is None
    assert fleet_of(deployment, [slow], 0.0, 900).cold_start == ("uid-b", ColdStart(900.0))


def test_a_new_node_teaches_its_phases_and_not_the_start() -> None:
    """The wait for a place is no part of the look-ahead, a pull is."""
    state = State()
    ways = [ColdStart(40.0, 5.0, 0.0), ColdStart(40.0, 5.0, 600.0), ColdStart(40.0, 105.0, 0.0)]
    for number, way in enumerate(ways):
        pods = Fleet(1, ready=1, ready_a_minute=1, cold_start=(f"p{number}", way))
        state = decide(policy(), Signals(CALM, pods), state, PEAK).state
    assert state.cold_start == ColdStart(40.0, pytest.approx(35.0), pytest.approx(126.0))
    assert look_ahead(state) == pytest.approx(75.0)
    assert look_ahead(State()) == 90.0
    assert look_ahead(State(cold_start=ColdStart(5000.0))) == 600.0
