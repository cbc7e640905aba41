"""The simulator's Prometheus says what the real one says: the same samples through promtool and through scrape.py."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from chattts_operator.autoscaling import rules
from chattts_operator.autoscaling.rules import Promise
from chattts_operator.autoscaling.simulation.curve import Curve
from chattts_operator.autoscaling.simulation.pod import BOUNDS, Pod, Sample
from chattts_operator.autoscaling.simulation.scrape import Prometheus, rates
from tests.promql.test_rules import LABELS, Promtool, promtool  # noqa: F401

AT = 600


def pods_of(seed: int, scrapes: int) -> list[Pod]:
    """Two pods under a load that grows; the second is scraped from the twentieth turn on."""
    rng, pods = random.Random(seed), []
    for number, first in ((1, 0), (2, 20)):
        pod = Pod(
            number, Curve(), BOUNDS, 3.0, lambda _: 1.0, rng, lambda _at, _act: None, lambda _request, _now: None, 0.0
        )
        counts, refused = [0] * (len(BOUNDS) + 1), 0
        for turn in range(first, scrapes):
            for place in range(len(counts)):
                counts[place] += rng.randrange(turn + 3) if place < 12 else 0
            refused += rng.randrange(5)
            buckets = [sum(counts[: place + 1]) for place in range(len(counts))]
            pod.samples.append(Sample(15.0 * turn, buckets, buckets[-1] + refused, refused, rng.randrange(9)))
        pods.append(pod)
    return pods


def series_of(pods: list[Pod]) -> list[dict[str, str]]:
    def one(name: str, pod: Pod, labels: str, values: list[int]) -> dict[str, str]:
        gap = ["_"] * round(pod.samples[0].time / 15)
        on = f'{LABELS},pod="{pod.number}"{labels}'
        return {"series": f"{name}{{{on}}}", "values": " ".join([*gap, *map(str, values)])}

    found = []
    for pod in pods:
        for place, bound in enumerate([*map(str, BOUNDS), "+Inf"]):
            labels = f',delivery="full",le="{bound}"'
            values = [sample.buckets[place] for sample in pod.samples]
            found.append(one("chattts_infer_duration_seconds_bucket", pod, labels, values))
        done = [sample.buckets[-1] for sample in pod.samples]
        found.append(one("chattts_infer_duration_seconds_count", pod, ',delivery="full"', done))
        refused = [sample.refused for sample in pod.samples]
        found.append(one("chattts_infer_total", pod, ',outcome="refused"', refused))
        accepted = [sample.offered - sample.refused for sample in pod.samples]
        found.append(one("chattts_infer_total", pod, ',outcome="accepted"', accepted))
        found.append(one("chattts_inflight_requests", pod, "", [sample.inflight for sample in pod.samples]))
    return found


def rounded(value: float | None) -> float | None:
    return None if value is None else math.floor(value * 100 + 0.5) / 100


@pytest.mark.parametrize("seed", [1, 2])
def test_the_simulators_prometheus_is_that_of_promtool(promtool: Promtool, seed: int) -> None:  # noqa: F811
    pods, prometheus = pods_of(seed, 41), Prometheus(Promise(), BOUNDS)
    prometheus.evaluate(pods, AT)
    seen, newest = prometheus.read(pods, AT), rates(pods, AT, 30)
    assert newest is not None
    expected: dict[str, Any] = {
        rules.offered("1m"): seen.offered,
        rules.offered("5m"): seen.offered_5m,
        rules.offered("30s"): newest.offered,
        rules.refused("1m"): seen.refused,
        rules.p99(Promise()): seen.p99,
        rules.bad_ratio(Promise()): seen.bad_ratio,
        rules.inflight(): seen.inflight,
        rules.reporting(): None if seen.reporting is None else float(seen.reporting),
    }
    checks = {(f"round({expression}, 0.01)", AT): rounded(value) for expression, value in expected.items()}
    promtool.check(series_of(pods), checks, recorded=False)
