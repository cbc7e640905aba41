"""The events of a run in the order of their time: requests, pods, scrapes, rules and ticks. Pure and seeded.

Delays are those of a cluster: every pod is scraped at its own moment, rules and ticks have theirs, and a new pod is
Ready only after its cold start.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from ..rules import STEP_SECONDS, Promise
from ..signals import ColdStart, Fleet, Metrics
from .autoscalers import Autoscaler
from .curve import Curve
from .loads import Load
from .outcome import Outcome, Point, Tally
from .pod import BOUNDS, Pod, Request
from .scrape import Prometheus

MINUTE = 60.0
KEPT_SECONDS = 330.0  # samples of a pod that has gone still count in the five minutes' rate
COLD_START_SPREAD = 0.1
WARM_SECONDS = 330  # before second 0, at the first rate: Prometheus knows the service when the autoscaler begins
EPOCH = 1_800_000_000.0  # of second 0: decisions know zero as "never"


@dataclass(frozen=True, slots=True)
class Setting:
    """All that surrounds the policy."""

    curve: Curve = field(default_factory=Curve)
    promise: Promise = field(default_factory=Promise)
    max_wait: float = 3.0  # seconds of predicted wait, beyond which the server refuses
    cold_start: float = 90.0
    replicas: int = 2  # at the start, Ready
    gpus: int | None = None  # pods that find a place; None: any number
    slowness: Callable[[float], float] = lambda _: 1.0  # of all pods, by time
    retries: int = 0  # of a client that was refused, after Retry-After
    scrape_seconds: float = 15.0
    seed: int = 1
    price: float | None = None  # of a replica-hour


def run(load: Load, autoscaler: Autoscaler, setting: Setting) -> Outcome:
    return _World(load, autoscaler, setting).run()


class _World:
    def __init__(self, load: Load, autoscaler: Autoscaler, setting: Setting) -> None:
        self.load, self.autoscaler, self.setting = load, autoscaler, setting
        self.pods: list[Pod] = []  # that exist
        self.gone: list[tuple[float, Pod]] = []
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = 0
        slo = setting.promise.milliseconds / 1000
        self._bounds = tuple(sorted({*BOUNDS, slo}))
        self._arrivals, self._service, self._chance = (random.Random(f"{setting.seed}/{part}") for part in "asc")
        self._prometheus = Prometheus(setting.promise, self._bounds)
        self._tally = Tally(slo)
        self._ready: list[Pod] = []
        self.desired = setting.replicas
        for _ in range(setting.replicas):
            self._add_pod(-WARM_SECONDS, ready_at=-WARM_SECONDS)

    def run(self) -> Outcome:
        end = self.load.seconds
        self._every(STEP_SECONDS, -WARM_SECONDS, lambda now: self._prometheus.evaluate(self._scraped(), now))
        self._every(self.autoscaler.interval, 0.0, self._tick)
        arrivals = self.load.arrivals(self._arrivals, before=WARM_SECONDS)
        coming = next(arrivals, math.inf)
        events = self._events
        while True:
            if coming <= events[0][0]:
                if coming >= end:
                    break
                self._ask(Request(coming, coming), coming)
                coming = next(arrivals, math.inf)
            else:
                now, _, act = heapq.heappop(events)
                if now > end:
                    break
                act(now)
        for pod in self.pods:
            self._charge(pod, end)
        return self._tally.outcome(self.autoscaler.name, self.load.name, end, self.setting.price)

    def _schedule(self, at: float, act: Callable[[float], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (at, self._number, act))

    def _every(self, seconds: float, begin: float, act: Callable[[float], None]) -> None:
        def turn(now: float) -> None:
            act(now)
            self._schedule(now + seconds, turn)

        self._schedule(begin + self._chance.uniform(0, seconds), turn)

    # --- requests ---

    def _ask(self, request: Request, now: float) -> None:
        if not self._ready:
            self._refused(request, now, 0.0)
            return
        pod = self._ready[int(self._chance.random() * len(self._ready))]
        excess = pod.offer(request, now)
        if excess is not None:
            self._refused(request, now, excess)

    def _refused(self, request: Request, now: float, excess: float) -> None:
        self._tally.refusals += request.born >= 0
        if request.tries > self.setting.retries:
            self._tally.given_up(request.born)
            return
        wait = max(1, math.ceil(excess + self._chance.random() * self.setting.max_wait / 2))
        again = Request(request.born, now + wait, request.tries + 1)
        self._schedule(now + wait, lambda at: self._ask(again, at))

    def _finished(self, request: Request, now: float) -> None:
        self._tally.answered(request.born, now)

    # --- pods ---

    def _add_pod(self, now: float, ready_at: float | None = None) -> None:
        self._number += 1
        pod = Pod(
            number=self._number,
            curve=self.setting.curve,
            bounds=self._bounds,
            max_wait=self.setting.max_wait,
            slowness=self.setting.slowness,
            rng=self._service,
            schedule=self._schedule,
            finished=self._finished,
            created=now,
        )
        self.pods.append(pod)
        self._place(pod, now, ready_at)

        def scrape(at: float) -> None:
            if pod in self.pods:
                pod.sample(at)
                self._schedule(at + self.setting.scrape_seconds, scrape)

        self._schedule(now + self._chance.uniform(0, self.setting.scrape_seconds), scrape)

    def _place(self, pod: Pod, now: float, ready_at: float | None = None) -> None:
        placed = sum(other.scheduled_at is not None for other in self.pods)
        if self.setting.gpus is not None and placed >= self.setting.gpus:
            return
        pod.scheduled_at = now
        spread = self._chance.uniform(1 - COLD_START_SPREAD, 1 + COLD_START_SPREAD)
        pod.ready_at = now + self.setting.cold_start * spread if ready_at is None else ready_at
        self._schedule(max(now, pod.ready_at), lambda at: self._is_ready(pod, at))

    def _is_ready(self, pod: Pod, now: float) -> None:
        if pod.is_ready(now):
            self._ready.append(pod)

    def _charge(self, pod: Pod, now: float) -> None:
        if pod.scheduled_at is not None:
            self._tally.replica_seconds += now - max(0.0, pod.scheduled_at)

    def _remove(self, pod: Pod, now: float) -> None:
        """Takes no more requests, ends those it has, and is gone."""
        if not pod.leaving:
            pod.leaving = True
            if pod in self._ready:
                self._ready.remove(pod)
        if pod.inflight:
            self._schedule(now + 0.5, lambda at: self._remove(pod, at))
            return
        self._charge(pod, now)
        self.pods.remove(pod)
        self.gone.append((now, pod))
        for other in self.pods:
            if other.scheduled_at is None:
                self._place(other, now)

    def _scraped(self) -> list[Pod]:
        return [pod for _, pod in self.gone] + self.pods

    # --- the autoscaler's tick ---

    def _tick(self, now: float) -> None:
        self.gone = [(at, pod) for at, pod in self.gone if now - at <= KEPT_SECONDS]
        metrics = self._prometheus.read(self._scraped(), now)
        fleet = self._fleet(now)
        desired, reason = self.autoscaler.decide(metrics, fleet, EPOCH + now)
        self._note(now, desired, reason, fleet, metrics)
        self._scale(desired, now)

    def _note(self, now: float, desired: int, reason: str, fleet: Fleet, metrics: Metrics) -> None:
        self._tally.timeline.append(Point(now, self.load.rate(now), desired, fleet.ready, metrics.p99, reason))

    def _fleet(self, now: float) -> Fleet:
        alive = [pod for pod in self.pods if not pod.leaving]
        ready = [pod for pod in alive if pod.is_ready(now)]
        ready_at = {pod.number: pod.ready_at or 0.0 for pod in ready}
        newest = max(ready, key=lambda pod: ready_at[pod.number], default=None)
        cold_start = None
        if newest is not None and newest.scheduled_at is not None and newest.created >= 0:
            cold_start = (str(newest.number), ColdStart(ready_at[newest.number] - newest.scheduled_at))
        return Fleet(
            committed=self.desired,
            ready=len(ready),
            ready_a_minute=sum(now - ready_at[pod.number] >= MINUTE for pod in ready),
            unschedulable=sum(pod.scheduled_at is None for pod in alive),
            last_ready_at=None if newest is None else EPOCH + ready_at[newest.number],
            cold_start=cold_start,
        )

    def _scale(self, desired: int, now: float) -> None:
        """As a ReplicaSet does: those without a place leave first, then those not Ready, then the newest."""
        self.desired = desired
        alive = [pod for pod in self.pods if not pod.leaving]
        for _ in range(desired - len(alive)):
            self._add_pod(now)
        if desired < len(alive):

            def order(pod: Pod) -> tuple[bool, bool, float]:
                return pod.scheduled_at is not None, pod.is_ready(now), -(pod.ready_at or 0.0)

            for pod in sorted(alive, key=order)[: len(alive) - desired]:
                self._remove(pod, now)
