"""The rules that the operator generates, evaluated by promtool: the recorded form and the direct form."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from chattts_operator.autoscaling import rules
from chattts_operator.autoscaling.rules import Promise
from dev.cluster.tools import built

LABELS = 'namespace="n",tts_service="s"'
STEP = 15
DEFAULT = Promise()


@dataclass
class Load:
    """Counters of one pod as Prometheus scrapes them, one value per 15 s from second 0 on; None is a missed scrape."""

    pod: str = "p"
    start: int = 0  # near 0, rate() guesses where the counter began; far from it, a share of rates is exact

    def __post_init__(self) -> None:
        self.good: list[int | None] = [self.start]
        self.late: list[int | None] = [0]
        self.refused: list[int | None] = [0]

    def run(self, steps: int, good: int = 0, late: int = 0, refused: int = 0) -> Load:
        for _ in range(steps):
            for series, grown in ((self.good, good), (self.late, late), (self.refused, refused)):
                series.append(_last(series) + grown)
        return self

    def gap(self, steps: int) -> Load:
        for series in (self.good, self.late, self.refused):
            series.extend([None] * steps)
        return self

    def restart(self) -> Load:
        """The process starts anew: all counters are 0 in the next scrape."""
        for series in (self.good, self.late, self.refused):
            series.append(0)
        return self

    def series(self, labels: str = LABELS) -> list[dict[str, str]]:
        on = f'{labels},pod="{self.pod}"'
        finished = [None if a is None or b is None else a + b for a, b in zip(self.good, self.late, strict=True)]
        duration = f'chattts_infer_duration_seconds_%s{{{on},delivery="full"%s}}'
        inflight = [None if value is None else 1 for value in self.good]
        invalid = [None if value is None else 7 * step for step, value in enumerate(self.good)]
        return [
            {"series": duration % ("bucket", ',le="0.8"'), "values": _values(self.good)},
            {"series": duration % ("bucket", ',le="1.2"'), "values": _values(self.good)},
            {"series": duration % ("bucket", ',le="2.0"'), "values": _values(finished)},
            {"series": duration % ("bucket", ',le="+Inf"'), "values": _values(finished)},
            {"series": duration % ("count", ""), "values": _values(finished)},
            {"series": f'chattts_infer_total{{{on},outcome="refused"}}', "values": _values(self.refused)},
            {"series": f'chattts_infer_total{{{on},outcome="accepted"}}', "values": _values(finished)},
            {
                "series": f'chattts_infer_total{{{on},outcome="invalid"}}',
                "values": _values(invalid),
            },
            {"series": f"chattts_inflight_requests{{{on}}}", "values": _values(inflight)},
        ]


def _last(series: list[int | None]) -> int:
    return next(value for value in reversed(series) if value is not None)


def _values(series: list[int | None]) -> str:
    return " ".join("_" if value is None else str(value) for value in series)


class Promtool:
    def __init__(self, folder: Path) -> None:
        self.folder, self.binary = folder, built("prometheus", "promtool")

    def check(
        self,
        series: list[dict[str, str]],
        expected: Mapping[tuple[str, int], float | None],
        promise: Promise = DEFAULT,
        recorded: bool = True,
        alerts: list[dict[str, Any]] | None = None,
    ) -> None:
        """`expected`: value by expression and second; None is no sample. Labels are dropped before comparing."""
        (self.folder / "rules.yaml").write_text(
            yaml.safe_dump({"groups": [rules.rule_group("g", promise, LABELS)] if recorded else []})
        )
        cases = [
            {
                "expr": f"max({expression})",
                "eval_time": f"{second}s",
                "exp_samples": [] if value is None else [{"labels": "{}", "value": value}],
            }
            for (expression, second), value in expected.items()
        ]
        test = {"interval": f"{STEP}s", "input_series": series, "promql_expr_test": cases}
        if alerts is not None:
            test["alert_rule_test"] = alerts
        file = self.folder / "test.yaml"
        file.write_text(
            yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": f"{STEP}s", "tests": [test]})
        )
        result = subprocess.run([self.binary, "test", "rules", str(file)], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def promtool(tmp_path: Path) -> Promtool:
    return Promtool(tmp_path)


DIRECT = rules.direct_breach(Promise())


@pytest.mark.parametrize(("over", "fires"), [(8, 0), (9, 1)], ids=["119 s of breach: no", "121 s of breach: yes"])
def test_sustained(promtool: Promtool, over: int, fires: int) -> None:
    """After 300 s of fast answers, 8 or 9 evaluations on the 15 s grid are over target: less or more than 120 s.

    So many fast answers follow that the late ones still in the 1-minute rate are less than 1 %.
    """
    load = Load(start=10**8).run(20, good=150).run(over, late=150).run(40, good=100_000)
    seconds = {(f"max_over_time({rules.BREACH}[10m])", 900): float(fires)}
    seconds |= {(rules.OVER, 300): 0.0, (rules.OVER, 315): 1.0}
    seconds |= {(rules.OVER, 300 + 15 * over): 1.0, (rules.OVER, 315 + 15 * over): 0.0}
    promtool.check(load.series(), seconds)
    promtool.check(load.series(), {(f"max_over_time(({DIRECT})[10m:1s])", 900): float(fires)}, recorded=False)


def test_moment(promtool: Promtool) -> None:
    """Not before 120 s after the first evaluation over target, and then at once; the direct form as well."""
    load = Load().run(20, good=150).run(40, late=150)
    promtool.check(
        load.series(),
        {(rules.BREACH, 420): 0.0, (rules.BREACH, 434): 0.0, (rules.BREACH, 435): 1.0, (rules.BREACH, 600): 1.0},
        alerts=[
            {"eval_time": "434s", "alertname": "ChatTTSLatencySLOBreach", "exp_alerts": []},
            {
                "eval_time": "436s",
                "alertname": "ChatTTSLatencySLOBreach",
                "exp_alerts": [
                    {
                        "exp_labels": {"namespace": "n", "tts_service": "s", "severity": "warning"},
                        "exp_annotations": {
                            "summary": "n/s breaks its latency promise",
                            "description": "More than 1 % of the requests to n/s took longer than 1.2 s "
                            "or were refused, for 120 s without a gap.",
                        },
                    }
                ],
            },
        ],
    )
    direct = {(DIRECT, second): float(second > 435) for second in range(405, 465) if second != 435}
    promtool.check(load.series(), direct, recorded=False)


def test_direct_form_is_never_early(promtool: Promtool) -> None:
    """At every second of the first 120 s, whatever the phase of the tick."""
    load = Load().run(20, good=150).run(40, late=150)
    promtool.check(load.series(), {(f"max_over_time(({DIRECT})[119s:1s])", 434): 0.0}, recorded=False)


def test_refused_is_late(promtool: Promtool) -> None:
    """All answers fast, 30 % of what is asked for refused; beside it the same answers with nothing refused."""
    refusing = Load().run(20, good=105).run(40, good=105, refused=45)
    promtool.check(
        refusing.series(),
        {(rules.BREACH, 420): 0.0, (rules.BREACH, 435): 1.0, (DIRECT, 436): 1.0, (f"round({rules.REFUSED})", 600): 3.0},
    )
    promtool.check(Load().run(60, good=105).series(), {(rules.BREACH, 600): 0.0, (DIRECT, 600): 0.0})


def test_one_percent_is_the_limit(promtool: Promtool) -> None:
    promtool.check(Load().run(80, good=992, late=8).series(), {(rules.BREACH, 900): 0.0, (DIRECT, 900): 0.0})
    promtool.check(Load().run(80, good=980, late=20).series(), {(rules.BREACH, 900): 1.0, (DIRECT, 901): 1.0})


def test_idle_never_passes(promtool: Promtool) -> None:
    """p99 of nothing is NaN; NaN is no breach and no alert."""
    idle = Load().run(10, late=150).run(60)
    promtool.check(
        idle.series(),
        {
            (f"{rules.BREACH} == 1", 800): None,
            (f"{DIRECT} == 1", 800): None,
            (f"{rules.OVER} == 1", 800): None,
            (f"{rules.P99} > 1.2", 800): None,
            (f"{rules.P99} < 1.2", 800): None,
            (rules.OFFERED, 800): 0.0,
        },
        alerts=[{"eval_time": "800s", "alertname": "ChatTTSLatencySLOBreach", "exp_alerts": []}],
    )


def test_few_samples_are_no_evidence(promtool: Promtool) -> None:
    """One late request a scrape is 8 in two minutes; 50 are needed. With 10 a scrape it is a breach."""
    promtool.check(Load().run(60, late=1).series(), {(rules.BREACH, 600): 0.0, (DIRECT, 600): 0.0})
    promtool.check(Load().run(60, late=10).series(), {(rules.BREACH, 600): 1.0, (DIRECT, 601): 1.0})


def test_a_gap_is_not_a_yes(promtool: Promtool) -> None:
    """Six scrapes fail in the middle of a breach: no yes until 120 s were seen without a gap again."""
    load = Load().run(20, good=150).run(4, late=150).gap(6).run(40, late=150)
    quiet = {(f"max_over_time({rules.BREACH}[10m])", second): 0.0 for second in (435, 465, 555)}
    promtool.check(load.series(), {**quiet, (rules.BREACH, 615): 1.0})
    direct = {(f"max_over_time(({DIRECT})[5m:1s])", second): 0.0 for second in (435, 465, 555)}
    promtool.check(load.series(), {**direct, (DIRECT, 616): 1.0}, recorded=False)
    without = Load().run(20, good=150).run(50, late=150)
    promtool.check(without.series(), {(rules.BREACH, 465): 1.0, (DIRECT, 466): 1.0})


def test_silence_is_absent_and_not_zero(promtool: Promtool) -> None:
    """All pods gone: no value at all, so that nobody reads "no breach" or "no load" into it."""
    load = Load().run(40, good=150).gap(40)
    signals = (rules.OFFERED, rules.P99, rules.BREACH, rules.REPORTING)
    promtool.check(load.series(), {(name, 900): None for name in signals})
    promtool.check(load.series(), {(rules.age(), 690): 90.0, (rules.AGE, 690): 90.0, (rules.age(), 1000): None})


def test_counter_reset(promtool: Promtool) -> None:
    """A pod that starts anew is neither a negative rate nor a breach."""
    a, b = Load("a").run(40, good=150).restart().run(20, good=150), Load("b").run(61, good=150)
    series = [*a.series(), *b.series()]
    promtool.check(
        series,
        {
            (f"round({rules.OFFERED})", 600): 20.0,
            (f"{rules.OFFERED} > bool 15", 615): 1.0,
            (f"{rules.OFFERED} > bool 20.1", 615): 0.0,
            (f"max_over_time({rules.OVER}[15m])", 900): 0.0,
        },
    )


def test_one_pod_missing(promtool: Promtool) -> None:
    """The signal of the others goes on, and the number of pods that report says that one is missing."""
    a, b = Load("a").run(60, good=150), Load("b").run(30, good=150).gap(30)
    series = [*a.series(), *b.series()]
    promtool.check(
        series,
        {
            (rules.REPORTING, 440): 2.0,
            (rules.REPORTING, 540): 1.0,
            (f"round({rules.OFFERED})", 440): 20.0,
            (f"round({rules.OFFERED})", 540): 10.0,
            (f"{rules.AGE} < 20", 540): 0.0,
        },
    )


def test_streams_and_long_texts_are_not_in_the_signal(promtool: Promtool) -> None:
    stream = f'{{{LABELS},pod="p",delivery="stream"'
    slow = " ".join(str(150 * step) for step in range(61))
    series = [
        *Load().run(60, good=150).series(),
        {"series": f'chattts_infer_duration_seconds_bucket{stream},le="1.2"}}', "values": "0x60"},
        {"series": f'chattts_infer_duration_seconds_bucket{stream},le="+Inf"}}', "values": slow},
        {"series": f"chattts_infer_duration_seconds_count{stream}}}", "values": slow},
        {"series": f"chattts_infer_long_duration_seconds_count{stream}}}", "values": slow},
    ]
    promtool.check(series, {(rules.BREACH, 600): 0.0, (f"round({rules.COMPLETED})", 600): 30.0})


def test_another_promise(promtool: Promtool) -> None:
    """2 s for 60 s: other bound, other window; the bound is written as the server writes it."""
    promise = Promise(milliseconds=2000, sustained_seconds=60, min_samples=10)
    assert promise.bound == "2.0"
    direct = rules.direct_breach(promise)
    load = Load().run(20, good=150).run(40, late=150)  # later than 1.2 s and never later than 2 s
    promtool.check(load.series(), {(rules.BREACH, 600): 0.0, (direct, 600): 0.0}, promise)
    refusing = Load().run(20, good=150).run(40, good=100, refused=50)
    promtool.check(
        refusing.series(),
        {(rules.BREACH, 374): 0.0, (rules.BREACH, 375): 1.0, (direct, 374): 0.0, (direct, 376): 1.0},
        promise,
    )


def test_queries_prefer_the_record_and_work_without(promtool: Promtool) -> None:
    promises = [Promise(), Promise(milliseconds=2000)]
    queries = rules.queries(promises)
    load = Load().run(20, good=150).run(40, late=150)
    tagged = f'{{{rules.PROMISE_LABEL}="%s"}}'
    breach = queries[rules.BREACH]
    expected: dict[tuple[str, int], float | None] = {
        (f"round({queries[rules.OFFERED]})", 600): 10.0,
        (f"{queries[rules.REPORTING]}", 600): 1.0,
        (f"{queries[rules.AGE]}", 600): 0.0,
        (f"count({breach})", 600): 2.0,
    }
    for promise, value in zip(promises, (1.0, 0.0), strict=True):
        only = f'label_replace({breach}, "keep", "yes", "{rules.PROMISE_LABEL}", "{promise}")'
        expected[f'sum by (keep) ({only}) and on (keep) label_replace(vector(1), "keep", "yes", "", "")', 600] = value
    assert "%s" in tagged
    promtool.check(load.series(), expected, recorded=False)
    # With the rules loaded the record is there as well, without the label.
    promtool.check(load.series(), {(f"count({breach})", 600): 3.0, (f"{rules.BREACH}", 600): 1.0})
