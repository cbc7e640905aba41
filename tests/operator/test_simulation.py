"""The simulator itself: loads, the curve, a pod, what Prometheus makes of it, and what a run counts."""

from __future__ import annotations

import itertools
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chattts_operator import api, cli
from chattts_operator.autoscaling.calibrate import Step, answerable, is_full, report, targets_of
from chattts_operator.autoscaling.rules import Promise
from chattts_operator.autoscaling.signals import Fleet, Metrics
from chattts_operator.autoscaling.simulation import live, loads
from chattts_operator.autoscaling.simulation.autoscalers import Autoscaler, Hpa, Ours, Recipe, hpa_on_p99, keda
from chattts_operator.autoscaling.simulation.curve import Curve, CurveError, fitted, of_engine_report
from chattts_operator.autoscaling.simulation.loads import LoadError
from chattts_operator.autoscaling.simulation.pod import BOUNDS, Pod, Request, Sample
from chattts_operator.autoscaling.simulation.scrape import Prometheus, quantile, rates
from chattts_operator.autoscaling.simulation.world import Setting, run
from chattts_operator.spec import Autoscaling, OperatorDefaults, parse
from tests.operator.fakes import tts_service

ROOT = Path(__file__).parents[2]


def policy(**autoscaling: Any) -> Autoscaling:
    body = tts_service(autoscaling={"mode": "Operator", "maxReplicas": 16, **autoscaling})
    return parse(body, OperatorDefaults(has_prometheus=True)).autoscaling


def fixed(replicas: int) -> Autoscaler:
    return Recipe(policy(minReplicas=replicas, maxReplicas=replicas))


# --- loads ---


def test_arrivals_follow_the_rate_and_the_seed() -> None:
    load = loads.step(10, 60, 3600)
    first = list(load.arrivals(random.Random(1)))
    assert first == list(load.arrivals(random.Random(1)))
    assert first == sorted(first)
    assert sum(at < 600 for at in first) == pytest.approx(6000, rel=0.05)
    assert sum(600 <= at < 2400 for at in first) == pytest.approx(108_000, rel=0.02)
    assert min(load.arrivals(random.Random(1), before=60)) < -50


def test_a_trace_holds_each_rate_until_the_next() -> None:
    load = loads.trace("t.csv", ["seconds,rps", "0,1", "60,5", "120,0"])
    assert (load.seconds, load.rate(59), load.rate(60), load.rate(150)) == (180, 1, 5, 0)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["a,b", "0,1"], "columns seconds and rps"),
        (["seconds,rps", "0,x"], "line 2"),
        (["seconds,rps", "5,1", "5,1"], "must grow"),
        (["seconds,rps", "0,-1"], "numbers from 0"),
        (["seconds,rps"], "no point"),
    ],
)
def test_a_bad_trace_says_where(lines: list[str], words: str) -> None:
    with pytest.raises(LoadError, match=words):
        loads.trace("t.csv", lines)


# --- the curve ---


def test_a_line_through_what_was_measured() -> None:
    curve = fitted([(1, 0.3), (4, 0.45), (8, 0.65)], 8)
    assert (curve.t0, curve.t1) == (pytest.approx(0.25), pytest.approx(0.05))
    assert curve.capacity == pytest.approx(8 / 0.65)
    with pytest.raises(CurveError):
        fitted([(1, 0.3), (1, 0.4)], 8)


def test_the_engines_own_report_gives_a_curve() -> None:
    report = json.loads((ROOT / "bench/results/engine.json").read_text())
    curve = of_engine_report(report, "ours, bfloat16", 4.0)
    assert curve.batch == 8
    measured = statistics.median(report["arms"]["audio seconds per second, saturated"]["ours, bfloat16"])
    assert curve.capacity * 4.0 == pytest.approx(measured, rel=0.1)
    with pytest.raises(CurveError, match="nothing"):
        of_engine_report({"arms": {}}, "nothing", 4.0)


# --- a pod ---


def one_pod(slots: bool) -> tuple[Pod, list[tuple[float, Any]], list[float]]:
    events: list[tuple[float, Any]] = []
    finished: list[float] = []
    pod = Pod(
        1, Curve(slots=slots), BOUNDS, 3.0, lambda _: 1.0, random.Random(1),
        lambda at, act: events.append((at, act)), lambda request, now: finished.append(now - request.born), 0.0,
    )  # fmt: skip
    return pod, events, finished


def drain(events: list[tuple[float, Any]]) -> None:
    for _ in range(1000):
        if not events:
            return
        events.sort(key=lambda item: item[0])
        at, act = events.pop(0)
        act(at)


@pytest.mark.parametrize("slots", [True, False])
def test_a_request_alone_takes_its_time_and_a_full_pod_refuses(slots: bool) -> None:
    pod, events, finished = one_pod(slots)
    assert pod.offer(Request(0.0, 0.0), 0.0) is None
    drain(events)
    assert finished[0] == pytest.approx(0.3, rel=0.11)
    excess = [pod.offer(Request(1.0, 1.0), 1.0) for _ in range(60)]
    assert None in excess
    assert excess[-1] is not None
    assert excess[-1] > 0
    drain(events)
    assert len(finished) == 1 + excess.count(None)
    assert max(finished) < 3.0 + 1.5  # the bound on the wait, and its own time
    assert pod.inflight == 0


# --- what Prometheus makes of it ---


def sampled(values: list[int], offset: float = 3.0) -> Pod:
    pod, _, _ = one_pod(True)
    for index, value in enumerate(values):
        pod.samples.append(Sample(offset + 15 * index, [value] * (len(BOUNDS) + 1), value, 0, 1))
    return pod


def test_rate_is_that_of_prometheus() -> None:
    """15 a scrape and a window that begins between two: 45 in 45 s seen, extended to the window's edges."""
    found = rates([sampled([1000 + 15 * index for index in range(10)])], 138.0, 60)
    assert found is not None
    assert found.offered == pytest.approx(1.0)
    fresh = rates([sampled([0, 15])], 18.0, 60)  # a counter that began at 0 is not extended below it
    assert fresh is not None
    assert fresh.offered == pytest.approx(15 / 60)
    assert rates([sampled([5])], 18.0, 60) is None


def test_the_quantile_is_linear_in_its_bucket() -> None:
    buckets = tuple(float(min(100, 10 * index)) for index in range(len(BOUNDS) + 1))
    assert quantile(0.5, BOUNDS, buckets) == pytest.approx(BOUNDS[5])
    assert quantile(0.99, BOUNDS, (0.0,) * len(BOUNDS) + (1.0,)) == BOUNDS[-1]
    assert quantile(0.99, BOUNDS, (0.0,) * (len(BOUNDS) + 1)) is None


@pytest.mark.parametrize(("late_steps", "fires"), [(8, False), (9, True)])
def test_the_rule_needs_its_two_minutes(late_steps: int, fires: bool) -> None:
    prometheus, pod = Prometheus(Promise(), BOUNDS), sampled([])
    good = late = 0
    for step in range(20 + late_steps):
        good, late = (good + 150, late) if step < 20 else (good, late + 150)
        buckets = [good if bound <= 1.2 else good + late for bound in (*BOUNDS, 99.0)]
        pod.samples.append(Sample(15.0 * step, buckets, good + late, 0, 1))
        prometheus.evaluate([pod], 15.0 * step + 1)
    assert prometheus.read([pod], 15.0 * (19 + late_steps) + 2).breach is fires


# --- a run ---


def test_the_same_seed_is_the_same_run() -> None:
    def once(seed: int) -> dict[str, Any]:
        return run(loads.step(5, 30, 900), Ours(policy()), Setting(seed=seed)).as_json()

    assert once(1) == once(1)
    assert once(1) != once(2)


def test_an_hour_of_sixty_requests_a_second_takes_seconds() -> None:
    """Measured on a busy machine too: processor time, and twice what it needs."""
    begun = time.process_time()
    outcome = run(loads.constant(60), fixed(8), Setting(replicas=8))
    assert outcome.requests == pytest.approx(216_000, rel=0.02)
    assert outcome.bad_percent < 1
    assert time.process_time() - begun < 10


def test_replicas_cost_while_they_have_a_place() -> None:
    outcome = run(loads.constant(1, 3600), fixed(3), Setting(replicas=3, price=2.0))
    assert (outcome.replica_hours, outcome.cost, outcome.ups) == (pytest.approx(3.0), pytest.approx(6.0), 0)
    few = run(loads.constant(1, 3600), fixed(3), Setting(replicas=3, gpus=1))
    assert few.replica_hours == pytest.approx(1.0)


def test_clients_that_come_again_are_counted_once() -> None:
    load = loads.constant(40, 600)
    patient = run(load, fixed(1), Setting(replicas=1, retries=2))
    once = run(load, fixed(1), Setting(replicas=1))
    assert patient.requests == pytest.approx(once.requests, rel=0.05)
    assert patient.refusals > once.refusals
    assert once.refusals == once.refused


# --- the others ---


def fleet(committed: int, ready: int | None = None) -> Fleet:
    ready = committed if ready is None else ready
    return Fleet(committed, ready=ready, ready_a_minute=ready)


@pytest.mark.parametrize(
    ("p99", "committed", "wanted"),
    [(1.2, 4, 4), (1.31, 4, 4), (1.33, 4, 5), (2.4, 4, 8), (24.0, 4, 8), (0.6, 4, 2), (None, 4, 4)],
)
def test_hpa_on_a_value(p99: float | None, committed: int, wanted: int) -> None:
    """Ten percent of tolerance, ready pods times the ratio, and at most 4 pods or 100 percent in 15 s."""
    scaler = hpa_on_p99(policy())
    assert scaler.decide(Metrics(offered=1.0, p99=p99), fleet(committed), 0.0)[0] == wanted


def test_hpa_keeps_the_highest_of_five_minutes_and_grows_in_periods() -> None:
    scaler = Hpa(policy(), "", qps=10.0)
    assert scaler.decide(Metrics(offered=75.0), fleet(1), 0.0)[0] == 5
    assert scaler.decide(Metrics(offered=75.0), fleet(5), 10.0)[0] == 5  # the four of this period are spent
    assert scaler.decide(Metrics(offered=75.0), fleet(5), 15.0)[0] == 8
    assert scaler.decide(Metrics(offered=10.0), fleet(8), 300.0)[0] == 8
    assert scaler.decide(Metrics(offered=10.0), fleet(8), 316.0)[0] == 1


def test_keda_takes_nothing_for_zero_and_the_hpa_does_not() -> None:
    silent = Metrics(offered=5.0, p99=None)
    both = Hpa(policy(), "", p99=1.2, qps=8.0)
    assert both.decide(silent, fleet(4), 0.0)[0] == 4
    assert keda(policy(), 8.0).decide(silent, fleet(4), 0.0)[0] == 1


def test_the_rule_alone_is_one_more_each_two_minutes() -> None:
    scaler = Recipe(policy())
    seen = [scaler.decide(Metrics(offered=1.0, p99=3.0), fleet(1), now)[0] for now in range(0, 256, 15)]
    assert seen == [1] * 8 + [2] + [1] * 8 + [2][: len(seen) - 17]


# --- calibrate ---


def closed(clients: int, curve: Curve, seconds: float = 10.0) -> Step:
    together = min(clients, curve.batch)
    latency = curve.seconds(together) * clients / together
    return Step(clients, round(clients / latency * seconds), 0, 0, seconds, latency, latency)


def test_calibration_finds_the_curve_and_a_rate_that_keeps_the_promise() -> None:
    curve = Curve()
    steps = list(itertools.takewhile(lambda step: step.clients <= 16, (closed(n, curve) for n in (1, 2, 4, 8, 16))))
    assert [is_full(steps[:count]) for count in range(1, 6)] == [False, False, False, False, True]
    targets = targets_of(steps, 1.2, 3.0)
    assert (targets.curve.t0, targets.curve.t1, targets.curve.batch) == (
        pytest.approx(0.25, rel=0.05), pytest.approx(0.05, rel=0.1), 8,
    )  # fmt: skip
    at_target = run(loads.constant(targets.qps, 1800), fixed(1), Setting(replicas=1, seed=5))
    beyond = run(loads.constant(targets.qps * 1.15, 1800), fixed(1), Setting(replicas=1, seed=5))
    assert at_target.bad_percent < 2 < beyond.bad_percent
    assert f'qpsPerReplica: "{targets.qps:.3g}"' in report(steps, targets, 1.2)


def test_too_slow_alone_is_said_and_no_target_is_given() -> None:
    targets = answerable(Curve(t0=2.0), 1.2, 3.0)
    assert targets.qps < 0.05
    with pytest.raises(CurveError):
        targets_of([closed(1, Curve())], 1.2, 3.0)


# --- from a live Prometheus ---


class History:
    """Answers with what it is given, by a word of the query."""

    def __init__(self, **answers: list[tuple[float, float]]) -> None:
        self.answers = answers

    async def history(self, expression: str, start: float, end: float, step: float) -> list[tuple[float, float]]:
        found = [answer for word, answer in self.answers.items() if word in expression]
        assert len(found) == 1, expression
        return found[0]


KEY = api.Key("default", "demo")


async def test_the_history_of_a_service_is_a_load() -> None:
    source = History(infer_total=[(1000.0, 2.0), (1060.0, 8.0), (1120.0, 2.0)])
    load = await live.load_of(source, KEY, 1000.0, 1180.0)
    assert (load.seconds, load.rate(30), load.rate(61)) == (180, 2.0, 8.0)
    with pytest.raises(LoadError, match="no requests of default/demo"):
        await live.load_of(History(infer_total=[]), KEY, 0, 60)


async def test_the_history_of_a_service_gives_its_curve() -> None:
    moments = [60.0 * index for index in range(20)]
    held = [(moment, 1 + index % 8) for index, moment in enumerate(moments)]
    took = [(moment, 0.25 + 0.05 * together) for moment, together in held]
    source = History(duration_seconds=took, inflight=[(at, float(value)) for at, value in held])
    curve = await live.curve_of(source, KEY, 0, 1200, 8)
    assert (curve.t0, curve.t1) == (pytest.approx(0.25), pytest.approx(0.05))
    with pytest.raises(CurveError, match="--t0"):
        await live.curve_of(History(duration_seconds=[], inflight=[]), KEY, 0, 1200, 8)


# --- the command ---


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.main(["simulate", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_command_compares_and_speaks_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    spec = tmp_path / "tts.yaml"
    spec.write_text(
        "metadata: {name: demo}\nspec:\n  model: {source: HostPath, hostPath: /w}\n"
        '  autoscaling: {maxReplicas: 4, targets: {qpsPerReplica: "8"}}\n'
    )
    trace = tmp_path / "load.csv"
    trace.write_text("seconds,rps\n0,5\n300,20\n600,5\n")
    picture = tmp_path / "run.png"
    told = ("--spec", str(spec), "--load", str(trace), "--compare", "--price", "1.5")
    status, out, _ = command(capsys, *told, "--json", "--plot", str(picture))
    outcomes = json.loads(out)
    assert status == 0
    assert [one["policy"] for one in outcomes] == [
        "this operator", "rule alone", "HPA on p99", "HPA on QPS", "KEDA on both",
    ]  # fmt: skip
    assert all(one["peak"] <= 4 and one["cost"] > 0 for one in outcomes)
    assert picture.read_bytes().startswith(b"\x89PNG")
    status, out, _ = command(capsys, *told)
    assert "late or refused" in out
    assert len(out.splitlines()) == 7


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--load", "nowhere.csv"), "nowhere.csv"),
        (("--spec", "nowhere.yaml"), "nowhere.yaml"),
        (("--t0", "-1"), "t0 -1"),
        (("--what-if", "demo"), "--prometheus-url"),
    ],
)
def test_what_cannot_be_simulated_says_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.delenv("CHATTTS_OPERATOR_PROMETHEUS_URL", raising=False)
    status, _, err = command(capsys, *arguments)
    assert status == 2
    assert words in err


# --- properties ---


@settings(max_examples=15, deadline=None)
@given(st.floats(0.0, 40.0), st.floats(0.0, 80.0), st.integers(0, 3), st.sampled_from([None, 2]), st.integers(1, 1000))
def test_every_request_ends_once(low: float, high: float, retries: int, gpus: int | None, seed: int) -> None:
    load = loads.step(low, high, 300)
    setting = Setting(retries=retries, gpus=gpus, seed=seed)
    asked = len([at for at in load.arrivals(random.Random(f"{seed}/a"), before=330) if at >= 0])
    outcome = run(load, Ours(policy()), setting)
    assert outcome.requests <= asked
    waiting = 16 * 60 + asked * (retries > 0)  # in the pods, or not yet tried again at the end
    assert outcome.requests >= asked - waiting
    assert all(1 <= point.desired <= 16 for point in outcome.timeline)


def slow_between(first: float, last: float, factor: float) -> Callable[[float], float]:
    return lambda at: factor if first <= at < last else 1.0


def test_slow_compute_is_late_and_no_load() -> None:
    setting = Setting(replicas=1)
    quick = run(loads.constant(2, 900), fixed(1), setting)
    slow = run(loads.constant(2, 900), fixed(1), replace(setting, slowness=slow_between(0, 900, 4.2)))
    assert quick.bad_percent < 1 < 90 < slow.bad_percent
