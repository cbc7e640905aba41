"""Services that come and go: nothing of them stays, neither in the cluster nor in the operator."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from typing import Any

import pytest

from chattts_operator import api
from chattts_operator.autoscaling.ticker import Ticker
from chattts_operator.cache import Cache
from tests.operator.fakes import tts_service
from tests.operator.test_invariants import run
from tests.operator.test_ticker import CALM, Source
from tests.operator.world import EVERY_CHILD, KEY, World

GROWTH_BYTES = 200_000  # of all that Python holds, over the second half of the cycles


def remembered(*parts: object) -> dict[str, int]:
    """How much stands in every store of these objects."""
    return {
        f"{type(part).__name__}.{name}": len(value)
        for part in parts
        for name in getattr(part, "__dict__", None) or getattr(type(part), "__slots__", ())
        if isinstance(value := getattr(part, name), (dict, list, set)) and value
    }


class Cycle:
    def __init__(self) -> None:
        self.world, self.cache = World(), Cache()
        self.ticker = Ticker(Source({KEY: CALM}), self.cache, self.world.defaults, lambda key: None, lambda: None)

    def once(self, number: int) -> None:
        """A service with every child is made, decided about, and deleted while nobody looks."""
        spec: dict[str, Any] = {} if number % 2 else EVERY_CHILD
        kube = self.world.kube
        kube.put(api.TTS_SERVICE, tts_service(uid=f"uid-{number}", **spec))
        run(self.world)
        for kind in (api.TTS_SERVICE, api.DEPLOYMENT):
            self.cache.saw(kind, kube.at(kind, KEY), False)
        asyncio.run(self.ticker.tick(self.world.now))
        assert kube.has(api.DEPLOYMENT, KEY)
        for kind in (api.TTS_SERVICE, api.DEPLOYMENT):
            self.cache.saw(kind, kube.at(kind, KEY), True)
        kube.remove(api.TTS_SERVICE, *KEY)
        kube.collect_garbage()
        self.world.reconcile()
        asyncio.run(self.ticker.tick(self.world.now))
        kube.writes.clear()
        kube.events.clear()
        for place in [place for place in kube.objects if place[0] == api.EVENT]:
            kube.remove(*place)


def _cycles(count: int) -> None:
    cycle = Cycle()
    cycle.once(0)
    tracemalloc.start()
    try:
        for number in range(1, count):
            cycle.once(number)
            if number == count // 2:
                gc.collect()
                half = tracemalloc.get_traced_memory()[0]
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - half
    finally:
        tracemalloc.stop()
    assert cycle.world.kube.objects == {}
    assert remembered(cycle.world.reconciler, cycle.ticker, cycle.cache) == {}
    assert grown < GROWTH_BYTES


def test_services_that_come_and_go_leave_nothing() -> None:
    _cycles(100)


def test_a_service_that_stays_is_remembered() -> None:
    """Beside the one above: these stores are where something would be."""
    cycle = Cycle()
    cycle.world.kube.put(api.TTS_SERVICE, tts_service())
    run(cycle.world)
    for kind in (api.TTS_SERVICE, api.DEPLOYMENT):
        cycle.cache.saw(kind, cycle.world.kube.at(kind, KEY), False)
    asyncio.run(cycle.ticker.tick(cycle.world.now))
    found = remembered(cycle.world.reconciler, cycle.ticker, cycle.cache)
    assert {"Ticker.decisions", "Cache.services", "Cache.deployments"} <= found.keys()
    assert cycle.world.kube.objects


@pytest.mark.long
def test_ten_thousand_services_that_come_and_go_leave_nothing() -> None:
    _cycles(10_000)
