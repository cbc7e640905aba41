"""Wiring: elector -> kopf -> workers -> ticker. It starts and ends them, and does nothing itself.

Whatever ends first ends all: a process that has lost the lead, its informers or its ticker starts anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import kopf

from . import api, informers
from .autoscaling.prometheus import Prometheus
from .autoscaling.ticker import Ticker
from .cache import Cache
from .config import Config
from .drivers import Node, node_of
from .elector import Elector, NotLeading
from .health import Health
from .hearing import DEAF_SECONDS, Hearing
from .kube import Kube, KubeError, kubeconfig
from .metrics import Metrics
from .reconcile import Reconciler
from .spec import OperatorDefaults
from .workqueue import WorkQueue

LOG = logging.getLogger(__name__)

HEARING_SECONDS = 60.0
SERVED_SECONDS = 60.0  # how long an answer to "which optional kinds are there" is good for
NODES_SECONDS = 60.0
QUEUE_STUCK_SECONDS = 120.0
LATE_TICKS = 5
EXIT_LOST = 1


async def run(config: Config) -> int:
    """The exit status: 0 after a signal, 1 when something that should not end has ended."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    operator = Operator(config)
    await operator.connect()
    try:
        return await operator.run(stop)
    finally:
        await operator.close()


class Operator:
    def __init__(self, config: Config) -> None:
        self.config = config
        self.metrics = Metrics()
        self.health = Health(time.monotonic)
        self.cache = Cache()
        self.queue: WorkQueue[api.Key] = WorkQueue()
        self.defaults = OperatorDefaults(
            has_prometheus=bool(config.prometheus_url),
            server_image=config.default_server_image,
            server_cuda_version=config.default_server_cuda_version,
            image_registries=config.image_registries,
            monitoring_labels=config.monitoring_labels,
        )
        self.prometheus = Prometheus(config.prometheus_url) if config.prometheus_url else None
        self._nodes: tuple[float, tuple[Node, ...] | None] = (float("-inf"), None)
        self._served: tuple[float, frozenset[api.Kind]] = (float("-inf"), frozenset())
        self._last_tick = time.monotonic()

    async def connect(self) -> None:
        config = self.config
        identity = config.identity or f"{socket.gethostname()}_{uuid.uuid4()}"
        self.kube = await Kube.connect(lambda: self.elector.check(), self.metrics.request, os.environ)
        self.elector = Elector(self.kube, config.namespace, config.lease_name, identity, time.monotonic)
        self.hearing = Hearing(
            self.kube, self.cache, config.watch_namespaces, self.queue.add, config.service_selector or None
        )
        self.ticker = None
        if self.prometheus is not None:
            failed = self.metrics.prometheus_failures.inc
            self.ticker = Ticker(self.prometheus, self.cache, self.defaults, self.queue.add, failed)
        decision_of = _undecided if self.ticker is None else self.ticker.decision_of
        self.reconciler = Reconciler(
            self.kube,
            self.defaults,
            decision_of,
            self.served,
            time.time,
            nodes=self.nodes,
            accepts=lambda service: api.carries(service, config.service_selector),
            cache=self.cache,
        )
        self.health.serve(config.health_port)
        self.metrics.serve(config.metrics_port)

    async def close(self) -> None:
        await self.elector.release()
        if self.prometheus is not None:
            await self.prometheus.close()
        await self.kube.close()

    async def run(self, stop: asyncio.Event) -> int:
        reporting = asyncio.create_task(self._report(), name="report")
        try:
            if not await _until(stop, self._lead()):
                return 0
            return await self._operate(stop)
        finally:
            await _end([reporting])

    async def _lead(self) -> None:
        """Waits for the CRD first: an operator that cannot work should not hold the Lease."""
        while not await self._serves_crd():
            LOG.warning("the API server does not know %s yet: is the CRD installed?", api.TTS_SERVICE.plural)
            await asyncio.sleep(5)
        await self.elector.acquire()
        self.metrics.leader.set(1)

    async def _serves_crd(self) -> bool:
        try:
            return await self.kube.serves(api.TTS_SERVICE)
        except KubeError as error:
            LOG.warning("%s", error)
            return False

    async def _operate(self, stop: asyncio.Event) -> int:
        self._last_tick = time.monotonic()
        tasks = [
            asyncio.create_task(self.elector.keep(), name="elector"),
            *(asyncio.create_task(self.queue.work(self._work), name=f"worker-{n}") for n in range(self.config.workers)),
            asyncio.create_task(_every(HEARING_SECONDS, self._hear), name="hearing"),
            asyncio.create_task(_every(self.config.resync_seconds, self._resync), name="resync"),
        ]
        if self.ticker is not None:
            tasks.append(asyncio.create_task(_every(self.config.scaling_interval_seconds, self._tick), name="ticker"))
        watched = await self.served()
        tasks.append(asyncio.create_task(self._inform(watched, stop), name="informers"))
        tasks.append(asyncio.create_task(self._until_more_is_served(watched), name="kinds"))
        stopping = asyncio.create_task(stop.wait(), name="stop")
        done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        self.metrics.leader.set(0)
        stop.set()
        ended = [task for task in done if task is not stopping]
        for task in ended:
            LOG.error("%s has ended: %r", task.get_name(), task.exception() or "no error")
        await _end([*tasks, stopping])
        return EXIT_LOST if ended and stopping not in done else 0

    async def _until_more_is_served(self, watched: frozenset[api.Kind]) -> None:
        """kopf learns its kinds when it starts: where prometheus-operator is installed later, we start anew."""
        while True:
            await asyncio.sleep(SERVED_SECONDS)
            try:
                new = await self.served() - watched
            except KubeError as error:
                LOG.warning("%s", error)
                continue
            if new:
                LOG.warning("%s can be watched now: starting anew", ", ".join(sorted(kind.kind for kind in new)))
                return

    async def _inform(self, served: frozenset[api.Kind], stop: asyncio.Event) -> None:
        """kopf, for ever. It puts its own handlers on the signals when it starts; ours come back once it runs."""
        children = [kind for kind in api.CHILD_KINDS if kind not in api.OPTIONAL_KINDS or kind in served]
        kinds = [api.TTS_SERVICE, *children, api.POD]
        running = asyncio.Event()
        asyncio.get_running_loop().create_task(_own_signals(running, stop))
        namespaces = self.config.watch_namespaces
        await kopf.operator(
            registry=informers.registry(kinds, self._seen, in_pod=kubeconfig(os.environ) is None),
            settings=informers.settings(self.config.service_selector),
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=stop,
            ready_flag=running,
        )

    def _seen(self, kind: api.Kind, body: api.Body, deleted: bool) -> None:
        key = self.cache.saw(kind, body, deleted)
        if key is not None:
            self.queue.add(key)

    async def _work(self, key: api.Key) -> float | None:
        started = time.monotonic()
        result = "ok"
        try:
            return await self.reconciler.reconcile(key)
        except KubeError as error:
            result = "refused" if error.permanent else "failed"
            LOG.warning("%s: %s", key, error)
            raise
        except NotLeading:
            result = "fenced"
            raise
        except Exception:
            result = "bug"
            LOG.exception("%s: this is a bug", key)
            raise
        finally:
            self.metrics.reconciles.labels(result).inc()
            self.metrics.reconcile_seconds.observe(time.monotonic() - started)

    async def served(self) -> frozenset[api.Kind]:
        """Optional kinds, asked for once a minute: monitoring may be installed after us."""
        asked_at, kinds = self._served
        if time.monotonic() - asked_at > SERVED_SECONDS:
            kinds = frozenset([kind for kind in api.OPTIONAL_KINDS if await self.kube.serves(kind)])
            self._served = (time.monotonic(), kinds)
        return kinds

    async def nodes(self) -> tuple[Node, ...] | None:
        """For the driver gate, asked for once a minute. None: we may not, or shall not."""
        if not self.config.check_drivers:
            return None
        asked_at, nodes = self._nodes
        if time.monotonic() - asked_at > NODES_SECONDS:
            try:
                nodes = tuple(node_of(body) for body in await self.kube.list(api.NODE))
            except KubeError as error:
                if error.status != 403:  # else an API server that is away would look like drivers that changed
                    raise
                nodes = None
            self._nodes = (time.monotonic(), nodes)
        return nodes

    async def _hear(self) -> None:
        try:
            await self.hearing.test(time.monotonic())
        except KubeError as error:
            LOG.warning("%s", error)

    async def _resync(self) -> None:
        for key in list(self.cache.services):
            self.queue.add(key)

    async def _tick(self) -> None:
        assert self.ticker is not None
        started = time.monotonic()
        await self.ticker.tick(time.time())
        self._last_tick = time.monotonic()
        self.metrics.tick_seconds.set(self._last_tick - started)
        self.metrics.decided(self.ticker.decisions)

    async def _report(self) -> None:
        while True:
            self.metrics.queue_depth.set(self.queue.depth())
            self.metrics.queue_oldest.set(self.queue.oldest_seconds())
            self.health.report(tuple(self._problems()), ready=True)
            await asyncio.sleep(1)

    def _problems(self) -> list[str]:
        if not self.elector.leading:
            return []
        now, problems = time.monotonic(), []
        if (deaf := self.hearing.deaf_seconds(now)) > DEAF_SECONDS:
            problems.append(f"the informers have missed a change for {deaf:.0f} s")
        if (oldest := self.queue.oldest_seconds()) > QUEUE_STUCK_SECONDS:
            problems.append(f"a TTSService waits for {oldest:.0f} s")
        late = LATE_TICKS * self.config.scaling_interval_seconds
        if self.ticker is not None and now - self._last_tick > late:
            problems.append(f"the scaling tick is late by {now - self._last_tick:.0f} s")
        return problems


def _undecided(_key: api.Key, _uid: str) -> None:
    """Without a Prometheus nothing is decided."""


async def _every(seconds: float, act: Callable[[], Awaitable[None]]) -> None:
    """On a fixed grid; a turn that takes too long skips turns and does not pile them up."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        due = max(due + seconds, loop.time())
        await asyncio.sleep(due - loop.time())
        await act()


async def _until(stop: asyncio.Event, work: Awaitable[None]) -> bool:
    """False if the stop came first."""
    task, stopping = asyncio.ensure_future(work), asyncio.create_task(stop.wait())
    await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
    finished = task.done()
    await _end([stopping] if finished else [task, stopping])
    if finished:
        await task
    return finished


async def _own_signals(running: asyncio.Event, stop: asyncio.Event) -> None:
    await running.wait()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
