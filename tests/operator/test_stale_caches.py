"""Caches that lie, in the manner of Sieve: stale, back in time, with a gap; each beside the run whose cache is right.

The reconcile reads from the API server itself; the scaling tick reads what watches have brought. Here the watches fail
in all three ways at every moment of a breach and of the calm after it: never may pods be taken away because of it,
and never may one cause be acted upon twice.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from chattts_operator import api
from chattts_operator.autoscaling.rules import Promise
from chattts_operator.autoscaling.signals import Metrics
from chattts_operator.autoscaling.ticker import Ticker
from chattts_operator.cache import Cache
from tests.operator.fakes import pod, tts_service
from tests.operator.world import KEY, World

TICK = 10.0
BREACH_TICKS, CALM_TICKS = 30, 90
CAPACITY = 8.0  # requests per second of a pod
KINDS = (api.TTS_SERVICE, api.DEPLOYMENT, api.POD)
Objects = dict[tuple[api.Kind, str, str], api.Body]


@dataclass
class Chain:
    """Ticker and reconciler on one API server; pods are Ready a minute after they are asked for."""

    world: World = field(default_factory=World)
    cache: Cache = field(default_factory=Cache)
    past: list[Objects] = field(default_factory=list)
    replicas: list[int] = field(default_factory=list)
    offered: float = 20.0

    def __post_init__(self) -> None:
        targets = {"qpsPerReplica": str(CAPACITY)}
        self.world.kube.put(api.TTS_SERVICE, tts_service(autoscaling={"mode": "Operator", "targets": targets}))
        self.ticker = Ticker(self, self.cache, self.world.defaults, lambda key: None, lambda: None)
        self.made_at: dict[str, float] = {}
        self.world.settle()

    async def read(self, promises: dict[api.Key, Promise]) -> dict[api.Key, Metrics]:
        """A Prometheus that knows the truth."""
        ready = sum(self._is_ready(name) for name in self.made_at)
        load = self.offered / (CAPACITY * max(1, ready))
        late = load > 1
        return {
            key: Metrics(
                offered=self.offered, offered_5m=self.offered, offered_30s=self.offered,
                completed=min(self.offered, CAPACITY * ready), refused=max(0.0, self.offered - CAPACITY * ready),
                p99=2.0 if late else 0.4, bad_ratio=0.3 if late else 0.0, breach=late, inflight=4.0 * ready,
                age=5.0, reporting=ready,
            )
            for key in promises
        }  # fmt: skip

    def tick(self, number: int, seen: Callable[[int, list[Objects]], Objects]) -> None:
        self.world.now += TICK
        self._controllers()
        self.past.append(
            copy.deepcopy({place: body for place, body in self.world.kube.objects.items() if place[0] in KINDS})
        )
        self._watch(seen(number, self.past))
        asyncio.run(self.ticker.tick(self.world.now))
        self.world.decision = self.ticker.decisions.get(KEY)
        self.world.reconcile()
        self.replicas.append(int(self.world.kube.at(api.DEPLOYMENT, KEY)["spec"]["replicas"]))

    def _controllers(self) -> None:
        wanted = int(self.world.kube.at(api.DEPLOYMENT, KEY)["spec"]["replicas"])
        for number in range(wanted):
            self.made_at.setdefault(f"p{number}", self.world.now)
        for name in [name for name in self.made_at if int(name[1:]) >= wanted]:
            del self.made_at[name]
            self.world.kube.remove(api.POD, KEY.namespace, name)
        for name, made in self.made_at.items():
            ready_at = datetime.fromtimestamp(made + 60, UTC).isoformat() if self._is_ready(name) else None
            self.world.kube.put(api.POD, pod(name, ready_at=ready_at))
        self.world.pods_are(wanted, sum(self._is_ready(name) for name in self.made_at))

    def _is_ready(self, name: str) -> bool:
        return self.world.now - self.made_at[name] >= 60

    def _watch(self, objects: Objects) -> None:
        """The cache becomes what this watch shows, by the events that lead there."""
        known = {uid for pods in self.cache.pods.values() for uid in pods}
        shown = {body["metadata"]["uid"]: body for place, body in objects.items() if place[0] == api.POD}
        for uid in known - shown.keys():
            name = self.cache.pods[KEY][uid].name
            gone: dict[str, Any] = pod(name)
            gone["metadata"]["uid"] = uid
            self.cache.saw(api.POD, gone, True)
        for place, body in objects.items():
            self.cache.saw(place[0], body, False)


def right(number: int, past: list[Objects]) -> Objects:
    return past[-1]


def stale(at: int) -> Callable[[int, list[Objects]], Objects]:
    """From `at` on the watch brings nothing for two minutes."""
    return lambda number, past: past[at] if at <= number < at + 12 else past[-1]


def back_in_time(at: int) -> Callable[[int, list[Objects]], Objects]:
    """Another API server, whose cache is a minute behind, answers now and then."""
    return lambda number, past: past[max(0, len(past) - 7)] if at <= number < at + 12 and number % 3 == 0 else past[-1]


def with_a_gap(at: int) -> Callable[[int, list[Objects]], Objects]:
    """The pods of a minute are never heard of."""
    return lambda number, past: (
        {place: body for place, body in past[-1].items() if place[0] != api.POD} if at <= number < at + 6 else past[-1]
    )


def lived(seen: Callable[[int, list[Objects]], Objects]) -> list[int]:
    """Replicas after each tick: load of 2.5 pods, then of half a pod."""
    chain = Chain()
    for number in range(BREACH_TICKS + CALM_TICKS):
        chain.offered = 20.0 if number < BREACH_TICKS else 4.0
        chain.tick(number, seen)
    return chain.replicas


@pytest.fixture(scope="module")
def reference() -> list[int]:
    return lived(right)


def test_beside_a_right_cache_it_scales_out_and_in(reference: list[int]) -> None:
    assert reference[BREACH_TICKS - 1] == max(reference) >= 3
    assert reference[-1] == 1


@pytest.mark.parametrize("fault", [stale, back_in_time, with_a_gap])
@pytest.mark.parametrize("at", [0, 6, 20, 35, 60, 72])
def test_a_cache_that_lies_takes_no_pod_and_asks_for_none_too_many(
    fault: Callable[[int], Callable[[int, list[Objects]], Objects]], at: int, reference: list[int]
) -> None:
    made = lived(fault(at))
    in_breach, after = made[:BREACH_TICKS], made[BREACH_TICKS:]
    assert in_breach == sorted(in_breach), "pods were taken away under load"
    assert max(made) <= max(reference), "one cause was acted upon twice"
    assert after == sorted(after, reverse=True)
    assert made[-1] == reference[-1]
