"""The scaling decision: one table of situations and the properties that hold in all of them."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chattts_operator import api
from chattts_operator.autoscaling import memory
from chattts_operator.autoscaling.history import Window
from chattts_operator.autoscaling.policy import decide
from chattts_operator.autoscaling.signals import ColdStart, Decision, Fleet, Metrics, Signals, State
from chattts_operator.spec import Autoscaling, OperatorDefaults, parse
from tests.operator.fakes import tts_service

NOW = 1_800_000_000.0
TICK = 15.0


def policy(**autoscaling: Any) -> Autoscaling:
    body = tts_service(autoscaling={"mode": "Operator", **autoscaling})
    return parse(body, OperatorDefaults(has_prometheus=True)).autoscaling


def metrics(offered: float = 10.0, **values: Any) -> Metrics:
    """A service in its target; what a test is about is given."""
    usual = {
        "offered_5m": offered,
        "completed": offered,
        "refused": 0.0,
        "p99": 0.5,
        "bad_ratio": 0.0,
        "breach": False,
        "inflight": 3.0,
        "age": 5.0,
        "reporting": 100,
    }
    return Metrics(offered=offered, **(usual | values))


def fleet(committed: int, **values: Any) -> Fleet:
    """All pods Ready for ten minutes."""
    usual = {"ready": committed, "ready_a_minute": committed, "last_ready_at": NOW - 600}
    return Fleet(committed, **(usual | values))


def full_window(wanted: int = 1, seconds: float = 600) -> Window:
    window = Window()
    for index in range(int(seconds / TICK), 0, -1):
        window = window.add(NOW - index * TICK, wanted, seconds)
    return window


BREACH: dict[str, Any] = {"breach": True, "p99": 2.0, "bad_ratio": 0.5, "inflight": 40.0}
CALM_STATE = State(window=full_window())


def one(
    spec: Autoscaling | None = None,
    seen: Metrics | None = None,
    pods: Fleet | None = None,
    state: State | None = None,
    now: float = NOW,
) -> Decision:
    signals = Signals(seen or metrics(), pods or fleet(1))
    return decide(spec or policy(), signals, state or State(), now)


# --- the table ---


def test_breach_is_one_step_and_learns_the_capacity() -> None:
    decision = one(seen=metrics(28.0, completed=20.0, **BREACH))
    assert (decision.desired, decision.reason) == (2, "SLOBreach")
    assert "p99 2 s (target 1.2 s)" in decision.message
    assert decision.state.learned_qps == 18.0  # late, and nothing refused: nine tenths
    assert decision.state.hold_until == NOW + 75
    assert (decision.state.history[0].before, decision.state.history[0].after) == (1, 2)
    assert one(seen=metrics(28.0, completed=20.0)).desired == 1  # the same without the breach


@pytest.mark.parametrize(
    ("pods", "why"),
    [
        (fleet(2, ready=1), "a pod is on its way"),
        (fleet(2, last_ready_at=NOW - 104), "the newest pod has not settled"),
        (fleet(2, ready=1, unschedulable=1), "a pod cannot be placed"),
        (fleet(2, rolling_out=True), "a rollout is on"),
    ],
)
def test_no_step_twice_for_one_cause(pods: Fleet, why: str) -> None:
    assert one(seen=metrics(28.0, **BREACH), pods=pods).desired == 2, why
    assert one(seen=metrics(28.0, **BREACH), pods=fleet(2)).desired > 2


def test_a_step_that_was_refused_is_decided_again_and_not_punished() -> None:
    """Beside it the same where the step was carried out and did not help."""
    seen = metrics(28.0, completed=20.0, **BREACH)
    first = one(seen=seen)
    assert (first.committed, first.desired) == (1, 2)
    state = first.state
    for seconds in range(15, 301, 15):
        again = one(seen=seen, state=state, now=NOW + seconds)
        assert (again.desired, again.reason) == (2, "SLOBreach"), seconds
        assert (again.state.ineffective_steps, len(again.state.history)) == (0, 1)
        assert again.state.history[0].time == NOW
        state = again.state
    done = fleet(2)
    assert one(seen=seen, pods=done, state=first.state, now=NOW + 60).desired == 2
    useless = one(seen=metrics(28.0, completed=20.0, **BREACH), pods=done, state=first.state, now=NOW + 120)
    assert (useless.desired, useless.state.ineffective_steps) == (4, 1)  # 28 rps, 9 each


def test_a_refused_scale_in_does_not_wait_for_its_period() -> None:
    calm = metrics(1.0, completed=1.0)
    spec = policy(targets={"qpsPerReplica": "10"})
    first = one(spec, calm, fleet(4), State(window=full_window()))
    assert (first.desired, one(spec, calm, fleet(4), first.state, NOW + 15).desired) == (3, 3)
    assert one(spec, calm, fleet(3), first.state, NOW + 15).desired == 3  # carried out: the period holds


def test_a_pod_that_never_comes_is_not_waited_for() -> None:
    seen = metrics(28.0, completed=20.0, **BREACH)
    assert one(seen=seen, pods=fleet(2, ready=1)).desired == 2
    assert one(seen=seen, pods=fleet(2, ready=1, overdue=1)).desired == 3


def test_after_a_gap_the_window_begins_anew() -> None:
    """After a hold nobody knows what was wanted meanwhile. Beside it the same without the gap."""
    calm = metrics(1.0, completed=1.0)
    spec = policy(targets={"qpsPerReplica": "10"})
    assert one(spec, calm, fleet(4), State(window=full_window())).desired == 3
    late = NOW + 120
    decision = one(spec, calm, fleet(4), State(window=full_window()), late)
    assert (decision.desired, decision.reason) == (4, "ScaleDownStabilized")
    state = decision.state
    for seconds in range(15, 315, 15):
        decision = one(spec, calm, fleet(4), state, late + seconds)
        state = decision.state
        assert (decision.desired == 3) == (seconds == 300), seconds


def test_settled_to_the_second() -> None:
    assert one(seen=metrics(28.0, **BREACH), pods=fleet(2, last_ready_at=NOW - 105)).desired == 3


@pytest.mark.parametrize(
    ("seen", "pods", "words"),
    [
        ({"bad_ratio": 0.4}, fleet(1), "when it lasts 120 s"),
        (BREACH, fleet(2, ready=1), "1 pods of the last step are on their way"),
        (BREACH, fleet(2, last_ready_at=NOW - 25), "the last step has 80 s more"),
        (BREACH, fleet(2, rolling_out=True), "a rollout is under way"),
    ],
)
def test_late_requests_are_named_while_nothing_is_done_about_them(
    seen: dict[str, Any], pods: Fleet, words: str
) -> None:
    decision = one(policy(maxReplicas=8), metrics(**seen), pods, State())
    assert (decision.desired, decision.reason) == (pods.committed, "OverTarget")
    assert words in decision.message


def test_one_late_request_in_a_hundred_is_within_the_target() -> None:
    assert one(policy(maxReplicas=8), metrics(bad_ratio=0.01), fleet(1), State()).reason == "WithinTarget"


def test_hold_after_a_step() -> None:
    held = State(hold_until=NOW + 1)
    assert one(seen=metrics(28.0, **BREACH), state=held).desired == 1
    assert one(seen=metrics(28.0, **BREACH), state=held, now=NOW + 1).desired == 2


@pytest.mark.parametrize(
    ("p99", "ready", "after"), [(1.21, 4, 5), (1.5, 4, 5), (2.4, 4, 6), (60.0, 4, 6), (None, 4, 5)]
)
def test_the_step_grows_with_the_excess(p99: float | None, ready: int, after: int) -> None:
    assert one(seen=metrics(100.0, breach=True, p99=p99), pods=fleet(ready)).desired == after


def test_a_step_that_did_not_help_doubles_the_hold() -> None:
    spec, state, now, committed = policy(maxReplicas=100), State(), NOW, 1
    holds = []
    for _ in range(7):  # slow computing that is no load: p99 and completions stand still
        decision = one(
            spec,
            metrics(2.0, breach=True, p99=4.0, completed=2.0, inflight=2.0 * committed),
            fleet(committed, last_ready_at=0.0),
            state,
            now,
        )
        holds.append(decision.state.hold_until - now)
        assert decision.desired > committed
        state, committed = replace(decision.state, learned_qps=None), decision.desired
        now = decision.state.hold_until
    assert holds == [75, 150, 300, 600, 1200, 1200, 1200]
    assert state.ineffective_steps == 4


def test_slow_alone_is_no_reason_for_more_pods() -> None:
    """Three pods with two requests among them; beside it the same with requests that wait for each other."""
    slow = metrics(2.0, breach=True, bad_ratio=0.9, p99=3.0, inflight=2.0)
    alone = one(policy(maxReplicas=20), slow, fleet(3))
    assert (alone.desired, alone.reason, alone.limited) == (3, "ComputeBound", "")
    assert "slow alone" in alone.message
    assert one(policy(maxReplicas=20), replace(slow, inflight=9.0), fleet(3)).desired > 3
    assert one(policy(maxReplicas=20), replace(slow, refused=0.5), fleet(3)).desired > 3


def test_a_jump_counts_as_the_newest_load_and_at_first_sight_for_more() -> None:
    spec = policy(targets={"qpsPerReplica": "8"}, maxReplicas=100)
    seen = metrics(16.0, offered_5m=15.0, offered_30s=40.0)
    first = one(spec, seen, fleet(20))
    assert first.state.jump_time == NOW
    assert one(spec, seen, fleet(6)).desired == math.ceil((16 + 3 * 24) / 8)
    assert one(spec, seen, fleet(4), State(jump_time=NOW - 15)).desired == 5
    noise = metrics(16.0, offered_5m=16.0, offered_30s=19.0)
    assert one(spec, noise, fleet(2)).desired == 2


def test_no_trend_for_five_minutes_after_a_jump() -> None:
    spec = policy(targets={"qpsPerReplica": "5.5"})
    growing = metrics(11.0, offered_5m=5.0, offered_30s=11.0)
    assert one(spec, growing, fleet(1), State(jump_time=NOW - 299)).desired == 2
    assert one(spec, growing, fleet(1), State(jump_time=NOW - 300)).desired == 3


def test_a_target_that_is_too_high_is_corrected_by_a_breach_and_by_calm() -> None:
    spec = policy(targets={"qpsPerReplica": "12"})
    late = one(spec, metrics(20.0, completed=20.0, **BREACH), fleet(2))
    assert late.state.learned_qps == 9.0
    assert late.desired == 3
    calm = metrics(20.0, completed=20.0, p99=0.7)
    state = replace(late.state, hold_until=0.0, last_scale_time=0.0)
    stays = one(spec, calm, fleet(3), replace(state, window=full_window(wanted=2)))
    assert (stays.desired, stays.reason) == (3, "WithinTarget")
    quick = one(spec, replace(calm, p99=0.4), fleet(3), replace(state, window=full_window(wanted=2)))
    assert quick.desired == 2  # latency says that two would do
    assert (quick.state.learned_qps or 0) > 9.0


@pytest.mark.parametrize(("completed", "learned"), [(1.9, 9.0), (0.0, 9.0), (2.1, 0.7 * 2.1)])
def test_an_outage_teaches_no_capacity(completed: float, learned: float) -> None:
    """Pods that finish less than a tenth of what is asked for are broken; beside it the least that still teaches."""
    seen = metrics(20.0, completed=completed, **{**BREACH, "refused": 17.0})
    late = one(seen=seen, pods=fleet(1), state=State(learned_qps=9.0))
    assert late.state.learned_qps == pytest.approx(learned)


def test_no_back_off_while_requests_are_refused() -> None:
    """A bounded queue pins p99: no single step lowers it, and waiting would stick at too few replicas."""
    state, now, committed = State(), NOW, 1
    for _ in range(5):
        seen = metrics(1000.0, breach=True, p99=3.0, completed=8.0 * committed, refused=1000.0 - 8 * committed)
        decision = one(policy(maxReplicas=1000), seen, fleet(committed, last_ready_at=0.0), state, now)
        assert decision.state.hold_until - now == 75
        state, committed, now = decision.state, decision.desired, decision.state.hold_until
    assert committed > 5


def test_feed_forward_is_at_once_and_looks_a_cold_start_ahead() -> None:
    spec = policy(targets={"qpsPerReplica": "5.5"})
    assert one(spec, metrics(11.0), fleet(1)).desired == 2
    assert one(spec, metrics(11.1), fleet(1)).desired == 3
    growing = metrics(11.0, offered_5m=5.0)  # + 6 rps in 120 s: 0.05 per second, 90 s ahead
    assert one(spec, growing, fleet(1)).desired == math.ceil((11 + 0.05 * 90) / 5.5)
    cold = State(cold_start=ColdStart(300.0))
    assert one(spec, growing, fleet(1), cold).desired == math.ceil(1.5 * 11 / 5.5)  # never more than 1.5 times
    falling = metrics(11.0, offered_5m=50.0)
    assert one(spec, falling, fleet(1)).desired == 2


def test_concurrency_counts_where_it_asks_for_more() -> None:
    spec = policy(targets={"concurrencyPerReplica": 8})
    assert one(spec, metrics(inflight=20.0)).desired == 3


def test_growth_is_bounded_at_once() -> None:
    spec = policy(targets={"qpsPerReplica": "1"}, maxReplicas=100)
    assert one(spec, metrics(90.0), fleet(1)).desired == 5
    decision = one(spec, metrics(90.0), fleet(10))
    assert (decision.desired, decision.limited) == (20, "StepLimit")
    assert one(policy(targets={"qpsPerReplica": "1"}), metrics(90.0), fleet(6)).limited == "AtMaxReplicas"


def test_at_the_maximum_it_says_so() -> None:
    decision = one(seen=metrics(100.0, **BREACH), pods=fleet(8))
    assert (decision.desired, decision.reason, decision.limited) == (8, "AtMaxReplicas", "AtMaxReplicas")


def test_pods_that_cannot_be_placed_stop_growth() -> None:
    spec = policy(targets={"qpsPerReplica": "1"})
    decision = one(spec, metrics(8.0), fleet(3, ready=2, unschedulable=1))
    assert (decision.desired, decision.reason, decision.limited) == (3, "Unschedulable", "Unschedulable")
    assert one(spec, metrics(8.0), fleet(3)).desired == 7


def test_scale_in_one_step_per_period() -> None:
    spec = policy(targets={"qpsPerReplica": "5"})
    decision = one(spec, metrics(5.0), fleet(8), CALM_STATE)
    assert (decision.desired, decision.reason) == (6, "ScaleIn")
    after = fleet(6)
    assert one(spec, metrics(5.0), after, decision.state, NOW + 59).desired == 6
    assert one(spec, metrics(5.0), after, decision.state, NOW + 60).desired == 5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"state": State(window=full_window(seconds=299))}, "ScaleDownStabilized"),
        ({"state": State(window=full_window(wanted=4))}, "ScaleDownStabilized"),
        ({"pods": fleet(4, rolling_out=True)}, "RolloutInProgress"),
        ({"seen": metrics(5.0, p99=0.97)}, "LatencyNotCalm"),
        ({"seen": metrics(5.0, p99=None)}, "LatencyNotCalm"),
        ({"seen": metrics(5.0, breach=None)}, "LatencyNotCalm"),
        ({"seen": metrics(5.0, age=61.0)}, "MetricsMissing"),
        ({"seen": metrics(5.0, reporting=3)}, "MetricsMissing"),
        ({"seen": Metrics()}, "MetricsMissing"),
    ],
)
def test_what_forbids_scale_in(change: dict[str, Any], reason: str) -> None:
    usual: dict[str, Any] = {
        "spec": policy(targets={"qpsPerReplica": "10"}),
        "seen": metrics(5.0),
        "pods": fleet(4),
        "state": CALM_STATE,
    }
    assert one(**usual).desired == 3  # the same without
    decision = one(**(usual | change))
    assert (decision.desired, decision.reason) == (4, reason)


def test_the_remaining_pods_must_carry_the_load() -> None:
    learned = replace(CALM_STATE, learned_qps=20.0)
    assert one(seen=metrics(17.9), pods=fleet(2), state=learned).desired == 1
    decision = one(seen=metrics(18.1), pods=fleet(2), state=learned)
    assert (decision.desired, decision.reason) == (2, "LoadNeedsReplicas")
    own = policy(targets={"qpsPerReplica": "20"})
    assert one(own, metrics(17.9), fleet(2), CALM_STATE).desired == 1
    assert one(own, metrics(18.1), fleet(2), CALM_STATE).desired == 2
    unknown = one(seen=metrics(10.0, p99=0.4), pods=fleet(2), state=CALM_STATE)  # 0.4 s at two is at most 0.8 s at one
    assert unknown.desired == 1
    assert one(seen=metrics(10.0, p99=0.6), pods=fleet(2), state=CALM_STATE).desired == 2


def test_without_traffic_latency_is_unknown_and_no_obstacle() -> None:
    idle = metrics(0.0, p99=math.nan, completed=0.0)
    assert one(seen=idle, pods=fleet(2), state=CALM_STATE).desired == 1


def test_missing_metrics_hold_and_then_fall_back_if_told() -> None:
    spec = policy(fallback={"afterSeconds": 60, "replicas": 3})
    state = CALM_STATE
    for second in range(0, 60, 15):
        decision = one(spec, Metrics(), fleet(2), state, NOW + second)
        assert (decision.desired, decision.reason) == (2, "MetricsMissing")
        state = decision.state
    decision = one(spec, Metrics(), fleet(2), state, NOW + 60)
    assert (decision.desired, decision.reason) == (3, "Fallback")
    assert one(spec, Metrics(), fleet(4), state, NOW + 60).desired == 4  # never down
    assert one(policy(), Metrics(), fleet(2), state, NOW + 3600).desired == 2  # nothing named: hold
    # Back again, the old evidence does not count.
    assert one(spec, metrics(0.0), fleet(4), state, NOW + 75).reason == "ScaleDownStabilized"


def test_no_pod_ready_is_no_failure_of_prometheus() -> None:
    spec = policy(fallback={"afterSeconds": 60, "replicas": 3})
    state = State(missing_since=NOW - 3600)
    assert one(spec, Metrics(), fleet(1, ready=0), state).reason == "WaitingForPods"
    stuck = one(spec, Metrics(), fleet(1, ready=0, unschedulable=1), state)
    assert (stuck.desired, stuck.reason) == (1, "Unschedulable")


def test_hold_of_the_user() -> None:
    until = datetime.fromtimestamp(NOW + 10, UTC).isoformat()
    spec = policy(hold={"until": until, "by": "Li: load test"})
    held = one(spec, metrics(50.0, **BREACH))
    assert (held.desired, held.reason) == (1, "Held")
    assert "Li: load test" in held.message
    assert one(spec, metrics(50.0, **BREACH), now=NOW + 11).desired == 2


def test_bounds_of_the_user_hold_even_without_metrics() -> None:
    spec = policy(minReplicas=2, maxReplicas=4)
    assert one(spec, Metrics(), fleet(1)).desired == 2
    assert one(spec, Metrics(), fleet(9)).desired == 4


def test_cold_start_is_learned_once_per_pod() -> None:
    state = State()
    for pod, seconds in (("a", 100.0), ("a", 100.0), ("b", 200.0)):
        state = one(pods=fleet(1, cold_start=(pod, ColdStart(seconds))), state=state).state
    assert state.cold_start == ColdStart(pytest.approx(130.0))


def test_a_change_that_is_not_carried_out_is_told_once() -> None:
    """The API server is away: the same step is decided again and again."""
    spec, state = policy(targets={"qpsPerReplica": "5"}), State()
    for tick in range(40):
        state = one(spec, metrics(10.0), fleet(1), state, NOW + tick * TICK).state
    assert len(state.history) == 1


@pytest.mark.parametrize(
    ("seen", "spec", "reason"),
    [
        (metrics(28.0, completed=20.0, **BREACH), {}, "SLOBreach"),
        (metrics(10.0), {"targets": {"qpsPerReplica": "5"}}, "QPS"),
    ],
)
def test_a_change_that_waits_to_be_carried_out_writes_no_status(
    seen: Metrics, spec: dict[str, Any], reason: str
) -> None:
    """A Conflict, or weights that are not there: the same step at every tick, for up to five minutes."""
    first = one(policy(**spec), seen)
    assert (first.desired > first.committed, first.reason) == (True, reason)
    state = first.state
    for seconds in range(10, 300, 10):
        again = one(policy(**spec), seen, state=state, now=NOW + seconds)
        assert memory.status_of(again) == memory.status_of(first), seconds
        state = again.state


def test_history_keeps_ten() -> None:
    spec, state, committed = policy(targets={"qpsPerReplica": "1"}, maxReplicas=100), State(), 1
    for tick in range(1, 14):
        decision = one(spec, metrics(5.0 * tick), fleet(committed), state, NOW + tick * TICK)
        state, committed = decision.state, decision.desired
    assert len(state.history) == 10
    assert state.history[0].after == committed


# --- longer stories ---


def run(
    spec: Autoscaling,
    load: list[float],
    before: float | None = None,
    capacity: float = 20.0,
    restart_at: int = -1,
) -> list[int]:
    """Replicas by tick. Pods are Ready at the next tick; p99 and refusals follow the load per pod."""
    state, committed, desired = State(), 1, []
    breached, past = 0, [load[0] if before is None else before] * 19
    for tick, offered in enumerate(load):
        now = NOW + tick * TICK
        if tick == restart_at:  # what survives is what status says
            state = memory.state_of(memory.status_of(Decision(committed, committed, "", "", state)))
        share = offered / (capacity * committed)
        late = share > 1
        breached = breached + 1 if late else 0
        seen = metrics(
            sum((past + load)[tick + 16 : tick + 20]) / 4,
            offered_5m=sum((past + load)[tick : tick + 20]) / 20,
            offered_30s=offered,
            completed=min(offered, capacity * committed),
            p99=3.0 if late else 0.3 + 0.6 * share,
            breach=breached >= 9,
            refused=max(0.0, offered - capacity * committed),
        )
        decision = decide(spec, Signals(seen, fleet(committed, last_ready_at=now - 600)), state, now)
        state, committed = decision.state, decision.desired
        desired.append(committed)
    return desired


@pytest.mark.parametrize("share", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("targets", [{}, {"qpsPerReplica": "20"}])
def test_constant_load_below_target_changes_nothing(share: float, targets: dict[str, str]) -> None:
    assert set(run(policy(targets=targets), [share * 20] * 240)) == {1}


@pytest.mark.parametrize("times", [1.3, 5.0])
def test_overload_without_targets_settles(times: float) -> None:
    story = run(policy(), [times * 20] * 960)
    assert story[60:] == [story[60]] * 900
    assert story[-1] * 20 >= times * 20


def test_the_demo_out_and_in_again() -> None:
    story = run(policy(), [28.0] * 60 + [0.0] * 40, before=0.0)
    assert story[:8] == [1] * 8
    assert story[8] == 3  # 28 rps and the queues, where 14 a pod are within the promise
    assert max(story) <= 3
    assert story[-1] == 1


@pytest.mark.parametrize("restart_at", range(0, 100, 3))
def test_a_restart_only_delays_scale_in(restart_at: int) -> None:
    load = [28.0] * 60 + [0.0] * 60
    plain, restarted = run(policy(), load), run(policy(), load, restart_at=restart_at)
    assert restarted[:60] == plain[:60]
    assert all(one >= other for one, other in zip(restarted, plain, strict=True))
    assert restarted[-1] == plain[-1] == 1


# --- properties ---

numbers = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.floats(min_value=0, max_value=1000))
any_metrics = st.builds(
    Metrics,
    offered=numbers,
    offered_5m=numbers,
    offered_30s=numbers,
    completed=numbers,
    refused=numbers,
    p99=numbers,
    bad_ratio=numbers,
    breach=st.sampled_from([None, False, True]),
    inflight=numbers,
    age=numbers,
    reporting=st.one_of(st.none(), st.integers(0, 40)),
)


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    committed = draw(st.integers(0, 40))
    ready = draw(st.integers(0, committed))
    return Fleet(
        committed,
        ready=ready,
        ready_a_minute=draw(st.integers(0, ready)),
        unschedulable=draw(st.integers(0, committed - ready)),
        last_ready_at=draw(st.one_of(st.none(), st.floats(NOW - 1000, NOW))),
        rolling_out=draw(st.booleans()),
    )


states = st.builds(
    State,
    learned_qps=st.one_of(st.none(), st.floats(0.1, 100)),
    cold_start=st.one_of(st.none(), st.builds(ColdStart, st.floats(0, 1000))),
    jump_time=st.sampled_from([0.0, NOW - 10]),
    unschedulable_time=st.sampled_from([0.0, NOW - 10]),
    hold_until=st.sampled_from([0.0, NOW - 1, NOW + 1]),
    ineffective_steps=st.integers(0, 4),
    p99_at_last_step=st.one_of(st.none(), st.floats(0, 10)),
    floor=st.integers(0, 40),
    floor_time=st.sampled_from([0.0, NOW - 10]),
    last_scale_time=st.sampled_from([0.0, NOW - 10]),
    window=st.builds(full_window, st.integers(0, 10), st.sampled_from([60.0, 600.0])),
    missing_since=st.sampled_from([None, NOW - 1000]),
)
specs = st.builds(
    policy,
    minReplicas=st.integers(1, 4),
    maxReplicas=st.integers(4, 30),
    targets=st.sampled_from([{}, {"qpsPerReplica": "5.5"}, {"qpsPerReplica": "0.1", "concurrencyPerReplica": 2}]),
    fallback=st.sampled_from([{}, {"replicas": 3}]),
)
many = settings(max_examples=300, deadline=None)


@many
@given(specs, any_metrics, fleets(), states)
def test_always_within_bounds_and_with_a_reason(spec: Autoscaling, seen: Metrics, pods: Fleet, state: State) -> None:
    decision = one(spec, seen, pods, state)
    assert spec.min_replicas <= decision.desired <= spec.max_replicas
    assert decision.reason
    assert decision.message or decision.reason == "WithinTarget"
    memory.status_of(decision)  # can be written


@many
@given(specs, any_metrics, fleets(), states)
def test_never_down_on_what_is_not_known(spec: Autoscaling, seen: Metrics, pods: Fleet, state: State) -> None:
    def known(value: float | None) -> bool:
        return value is not None and math.isfinite(value) and value >= 0

    blind = not (known(seen.offered) and known(seen.age) and seen.reporting is not None)
    stale = known(seen.age) and (seen.age or 0) > 60
    partial = seen.reporting is not None and seen.reporting < 0.8 * pods.ready_a_minute
    if blind or stale or partial or pods.rolling_out or pods.ready == 0:
        assert one(spec, seen, pods, state).desired >= spec.clamp(pods.committed)


@many
@given(specs, any_metrics, fleets(), states)
def test_no_slo_step_on_the_way(spec: Autoscaling, seen: Metrics, pods: Fleet, state: State) -> None:
    fresh = pods.last_ready_at is not None and NOW - pods.last_ready_at < spec.settle_seconds
    if pods.pending or fresh or state.hold_until > NOW:
        assert one(spec, seen, pods, state).reason != "SLOBreach"


@many
@given(specs, any_metrics, fleets(), states)
def test_unschedulable_pods_bound_growth(spec: Autoscaling, seen: Metrics, pods: Fleet, state: State) -> None:
    if pods.unschedulable:
        assert one(spec, seen, pods, state).desired <= spec.clamp(pods.committed) + 1


@many
@given(specs, fleets(), states, st.floats(0, 500), st.floats(0, 500), st.booleans())
def test_more_load_never_fewer_replicas(
    spec: Autoscaling, pods: Fleet, state: State, load: float, more: float, breach: bool
) -> None:
    low = metrics(load, breach=breach, offered_5m=0.0)
    high = metrics(load + more, breach=breach, offered_5m=0.0)
    assert one(spec, high, pods, state).desired >= one(spec, low, pods, state).desired


@many
@given(specs, any_metrics, fleets(), states)
def test_what_status_keeps_decides_the_same_or_later(
    spec: Autoscaling, seen: Metrics, pods: Fleet, state: State
) -> None:
    """Through status and back, as after a restart: up as before, and down only later."""
    kept = memory.state_of(memory.status_of(Decision(1, 1, "", "", state)))
    before, after = one(spec, seen, pods, state), one(spec, seen, pods, kept)
    if before.reason not in ("Fallback", "QPS"):  # digits are cut and waiting begins anew
        assert after.desired >= before.desired or after.desired >= spec.clamp(pods.committed)


def test_status_of_a_state_reads_back() -> None:
    decision = one(
        seen=metrics(28.0, completed=20.0, refused=7.0, **BREACH),
        pods=fleet(1, cold_start=("p", ColdStart(30.2, 10.0, 3.0))),
    )
    kept = memory.state_of(memory.status_of(decision))
    state = decision.state
    assert kept.learned_qps == state.learned_qps
    assert kept.history == state.history
    assert kept.cold_start == ColdStart(30.2, 10.0, 3.0) == state.cold_start
    assert kept.cold_start_pod == "p"
    assert kept.last_change == state.last_change
    assert (kept.hold_until, kept.floor, kept.last_scale_time) == (state.hold_until, state.floor, state.last_scale_time)
    assert kept.refused_at_last_step == 0.25
    assert api.MODE_OPERATOR == "Operator"
