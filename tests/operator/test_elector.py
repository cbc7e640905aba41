"""The Lease in virtual time: one leader, take-over in time, and no write by one who is no longer sure."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from chattts_operator import api
from chattts_operator.elector import Elector, NotLeading
from chattts_operator.kube import KubeError
from tests.operator.fakes import FakeKube, run_virtual

LEASE = (api.LEASE, "system", "chattts-operator")


class Line:
    """One operator's way to the API server, which can be cut."""

    def __init__(self, kube: FakeKube) -> None:
        self.kube = kube
        self.cut = False

    async def _through(self, call: Any) -> Any:
        if not self.cut:
            return await call
        call.close()
        await asyncio.sleep(10)
        raise KubeError(0, "no answer")

    async def get(self, *arguments: Any) -> Any:
        return await self._through(self.kube.get(*arguments))

    async def create(self, *arguments: Any) -> Any:
        return await self._through(self.kube.create(*arguments))

    async def replace(self, *arguments: Any) -> Any:
        return await self._through(self.kube.replace(*arguments))


def elector(kube: FakeKube, identity: str) -> tuple[Elector, Line]:
    line = Line(kube)
    loop = asyncio.get_running_loop()
    made = Elector(
        line, "system", "chattts-operator", identity, loop.time, lambda: datetime.fromtimestamp(loop.time(), UTC)
    )
    return made, line


async def _lead(candidate: Elector) -> None:
    await candidate.acquire()
    await candidate.keep()


def test_a_race_has_one_winner() -> None:
    async def main() -> None:
        kube = FakeKube()
        candidates = [elector(kube, name)[0] for name in "abcd"]
        tasks = [asyncio.create_task(_lead(candidate)) for candidate in candidates]
        for _ in range(200):
            await asyncio.sleep(0.5)
            assert sum(candidate.leading for candidate in candidates) == 1
        for task in tasks:
            task.cancel()
        assert kube.objects[LEASE]["spec"]["leaseTransitions"] == 0

    run_virtual(main())


def test_a_killed_leader_is_followed_within_the_lease() -> None:
    async def main() -> None:
        kube = FakeKube()
        (first, _), (second, _) = elector(kube, "a"), elector(kube, "b")
        leading = asyncio.create_task(_lead(first))
        await asyncio.sleep(1)
        waiting = asyncio.create_task(_lead(second))
        await asyncio.sleep(60)
        assert (first.leading, second.leading) == (True, False)
        leading.cancel()
        killed = asyncio.get_running_loop().time()
        while not second.leading:
            assert not first.leading or asyncio.get_running_loop().time() - killed <= 10
            await asyncio.sleep(0.1)
        assert 10 < asyncio.get_running_loop().time() - killed <= 15 + 2 + 2
        assert kube.objects[LEASE]["spec"]["leaseTransitions"] == 1
        waiting.cancel()

    run_virtual(main())


def test_a_leader_that_says_goodbye_is_followed_at_once() -> None:
    async def main() -> None:
        kube = FakeKube()
        (first, _), (second, _) = elector(kube, "a"), elector(kube, "b")
        await first.acquire()
        waiting = asyncio.create_task(_lead(second))
        await asyncio.sleep(5)
        await first.release()
        with pytest.raises(NotLeading):
            first.check()
        await asyncio.sleep(2.1)
        assert second.leading
        waiting.cancel()

    run_virtual(main())


def test_cut_off_it_stops_before_another_starts() -> None:
    """At no moment do two pass the fence."""

    async def main() -> None:
        kube = FakeKube()
        (first, line), (second, _) = elector(kube, "a"), elector(kube, "b")
        keeping, waiting = asyncio.create_task(_lead(first)), asyncio.create_task(_lead(second))
        await asyncio.sleep(20)
        line.cut = True
        cut, lost = asyncio.get_running_loop().time(), None
        while not second.leading:
            if not first.leading and lost is None:
                lost = asyncio.get_running_loop().time()
            assert not (first.leading and second.leading)
            await asyncio.sleep(0.05)
        assert lost is not None
        assert lost - cut <= 10
        line.cut = False
        await asyncio.sleep(30)
        assert keeping.done()  # the process ends here; it does not take up the lead again by itself
        assert not first.leading
        waiting.cancel()

    run_virtual(main())


def test_a_short_outage_costs_nothing() -> None:
    async def main() -> None:
        kube = FakeKube()
        leader, _ = elector(kube, "a")
        task = asyncio.create_task(_lead(leader))
        await asyncio.sleep(5)
        kube.refuse = lambda verb, kind: KubeError(503, "busy")
        await asyncio.sleep(6)
        assert leader.leading
        kube.refuse = lambda verb, kind: None
        await asyncio.sleep(30)
        assert leader.leading
        task.cancel()

    run_virtual(main())


def test_clocks_that_differ_do_no_harm() -> None:
    """The times in the Lease lie a year ahead or behind: only what we see changing counts."""

    async def main() -> None:
        kube = FakeKube()
        leader, _ = elector(kube, "a")
        task = asyncio.create_task(_lead(leader))
        await asyncio.sleep(1)
        for stamp in ("2000-01-01T00:00:00.000000Z", "2100-01-01T00:00:00.000000Z"):
            kube.objects[LEASE]["spec"]["renewTime"] = stamp
            other, _ = elector(kube, f"b-{stamp}")
            waiting = asyncio.create_task(other.acquire())
            await asyncio.sleep(60)
            assert not waiting.done()
            waiting.cancel()
        task.cancel()

    run_virtual(main())


def test_stolen_it_stops() -> None:
    async def main() -> None:
        kube = FakeKube()
        leader, _ = elector(kube, "a")
        task = asyncio.create_task(_lead(leader))
        await asyncio.sleep(1)
        kube.put(api.LEASE, {**kube.objects[LEASE], "spec": {"holderIdentity": "thief", "leaseDurationSeconds": 15}})
        await asyncio.sleep(4.5)
        assert task.done()
        with pytest.raises(NotLeading):
            leader.check()

    run_virtual(main())
