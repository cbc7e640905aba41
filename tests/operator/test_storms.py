"""The API server refuses, is away or says nothing for ten minutes: how often it is asked, and when all is well again.

Fifty services, four workers, the operator's own queue, in virtual time; beside each storm the same without it.
"""

from __future__ import annotations

import asyncio
import itertools

import pytest

from chattts_operator import api
from chattts_operator.kube import KubeError
from chattts_operator.reconcile import Reconciler
from chattts_operator.spec import OperatorDefaults
from chattts_operator.workqueue import WorkQueue
from tests.operator.fakes import FakeKube, run_virtual, tts_service
from tests.operator.world import IMAGE, MONITORING

SERVICES, WORKERS = 50, 4
BEGINS, LASTS = 100.0, 600.0
CONVERGED = 90.0  # seconds after the storm
KEYS = [api.Key("default", f"s{number}") for number in range(SERVICES)]
WRITES = ("apply", "status", "delete")


class Storm:
    """Between two times every request of these verbs is refused; all requests are counted by the second."""

    def __init__(self, status: int, verbs: tuple[str, ...] | None, seconds: float) -> None:
        self.kube = FakeKube(*MONITORING)
        self.kube.refuse = self._refuse
        self._status, self._verbs, self._seconds = status, verbs, seconds
        self.asked: list[float] = []

    def _refuse(self, verb: str, kind: api.Kind) -> KubeError | None:
        now = asyncio.get_running_loop().time() - self._began
        self.asked.append(now)
        if not BEGINS <= now < BEGINS + self._seconds or (self._verbs is not None and verb not in self._verbs):
            return None
        return KubeError(self._status, "a storm", retry_after=5.0 if self._status == 429 else None)

    def busiest(self, since: float, until: float, window: float = 10.0) -> float:
        """Most requests a second over any ten seconds."""
        times = [time for time in self.asked if since <= time < until]
        counts = (sum(start <= time < start + window for time in times) for start in times)
        return max(counts, default=0) / window

    async def lived(self) -> float:
        """When every Deployment carries what was edited as the storm began, in seconds after its end."""
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        chances = itertools.cycle((0.1, 0.9, 0.5, 0.3, 0.7))
        queue: WorkQueue[api.Key] = WorkQueue(chance=lambda: next(chances))

        async def served() -> frozenset[api.Kind]:
            return self.kube.served

        reconciler = Reconciler(self.kube, OperatorDefaults(True, IMAGE), lambda key, uid: None, served, loop.time)
        workers = [asyncio.create_task(queue.work(reconciler.reconcile)) for _ in range(WORKERS)]
        for key in KEYS:
            self.kube.put(api.TTS_SERVICE, tts_service(name=key.name, uid=f"uid-{key.name}"))
            queue.add(key)
        await asyncio.sleep(BEGINS + 1)
        for key in KEYS:
            self.kube.edit(api.TTS_SERVICE, key, lambda body: body["spec"].update(server={"maxBatchSize": 3}))
            queue.add(key)
        while not all(self._carries(key) for key in KEYS):
            assert loop.time() - self._began < BEGINS + LASTS + 10 * CONVERGED, "it does not come to rest"
            await asyncio.sleep(1)
        converged = loop.time() - self._began - BEGINS - self._seconds
        await asyncio.sleep(60)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        return converged

    def _carries(self, key: api.Key) -> bool:
        if not self.kube.has(api.DEPLOYMENT, key):
            return False
        (server,) = self.kube.at(api.DEPLOYMENT, key)["spec"]["template"]["spec"]["containers"]
        return {"name": "CHATTTS_MAX_BATCH_SIZE", "value": "3"} in server["env"]


def test_without_a_storm_an_edit_is_there_at_once() -> None:
    calm = Storm(0, None, 0.0)
    assert run_virtual(calm.lived()) < 5


@pytest.mark.parametrize(
    ("status", "verbs"),
    [(0, None), (429, None), (500, None), (503, None), (409, WRITES), (422, WRITES), (500, WRITES)],
)
def test_a_storm_of_ten_minutes_is_waited_for_quietly_and_then_all_is_well(
    status: int, verbs: tuple[str, ...] | None
) -> None:
    storm = Storm(status, verbs, LASTS)
    converged = run_virtual(storm.lived())
    assert 0 < converged <= CONVERGED
    reads = 12  # of one attempt that comes as far as its first write
    attempts = sum(BEGINS + 60 <= time < BEGINS + LASTS for time in storm.asked) / SERVICES
    assert attempts <= (1 if verbs is None else reads) * 20, "more often than once in half a minute"
    calm = storm.busiest(0, BEGINS)
    assert storm.busiest(BEGINS + LASTS, BEGINS + LASTS + CONVERGED) <= calm, "worse than a start"
    assert storm.kube.writes[-1][0] in WRITES
