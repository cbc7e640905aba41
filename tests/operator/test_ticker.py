"""The scaling tick: which services it asks about, what it remembers, whom it wakes. Decisions: test_policy.py."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from chattts_operator import api
from chattts_operator.autoscaling import ticker
from chattts_operator.autoscaling.prometheus import PrometheusError
from chattts_operator.autoscaling.rules import Promise
from chattts_operator.autoscaling.signals import Metrics
from chattts_operator.autoscaling.ticker import Ticker
from chattts_operator.cache import Cache
from chattts_operator.resources.deployment import deployment
from chattts_operator.spec import OperatorDefaults, parse
from tests.operator.fakes import pod, tts_service

NOW = 1_800_000_000.0
KEY = api.Key("default", "demo")
DEFAULTS = OperatorDefaults(has_prometheus=True, server_image="image:1")
CALM = Metrics(5.0, 5.0, 5.0, 0.0, 0.5, 0.0, False, 2.0, 3.0, 1)


@dataclass
class Source:
    """A Prometheus that says what the test says."""

    answer: dict[api.Key, Metrics] = field(default_factory=dict)
    away: bool = False
    asked: list[Mapping[api.Key, Promise]] = field(default_factory=list)

    async def read(self, promises: Mapping[api.Key, Promise]) -> dict[api.Key, Metrics]:
        self.asked.append(promises)
        if self.away:
            raise PrometheusError("away")
        return self.answer


@dataclass
class World:
    source: Source = field(default_factory=lambda: Source({KEY: CALM}))
    cache: Cache = field(default_factory=Cache)
    woken: list[api.Key] = field(default_factory=list)
    now: float = NOW

    def __post_init__(self) -> None:
        self.failures = 0
        self.start_operator()

    def start_operator(self) -> None:
        def failed() -> None:
            self.failures += 1

        self.ticker = Ticker(self.source, self.cache, DEFAULTS, self.woken.append, failed)

    def add(self, replicas: int = 1, status: dict[str, Any] | None = None, **spec: Any) -> None:
        body = tts_service(**spec)
        if status is not None:
            body["status"] = status
        self.cache.saw(api.TTS_SERVICE, body, False)
        child = deployment(parse(body, DEFAULTS), replicas, "image:1", False)
        child["status"] = {"observedGeneration": 0, "replicas": replicas, "updatedReplicas": replicas}
        self.cache.saw(api.DEPLOYMENT, child, False)
        ready_at = datetime.fromtimestamp(NOW - 600, UTC).isoformat()
        for number in range(replicas):
            self.cache.saw(api.POD, pod(f"p{number}", ready_at=ready_at), False)

    def tick(self, seconds: float = 15) -> list[api.Key]:
        self.now += seconds
        self.woken.clear()
        asyncio.run(self.ticker.tick(self.now))
        return list(self.woken)


def test_a_decision_wakes_and_is_kept() -> None:
    world = World()
    world.add()
    world.source.answer = {KEY: replace(CALM, breach=True, p99=2.0, offered=28.0, completed=20.0)}
    assert world.tick() == [KEY]
    decision = world.ticker.decisions[KEY]
    assert (decision.committed, decision.desired, decision.reason) == (1, 2, "SLOBreach")
    assert world.source.asked == [{KEY: Promise()}]


def test_one_question_for_all() -> None:
    world = World()
    for name in ("a", "b", "c"):
        body = tts_service(name, f"uid-{name}")
        world.cache.saw(api.TTS_SERVICE, body, False)
        world.cache.saw(api.DEPLOYMENT, deployment(parse(body, DEFAULTS), 1, "image:1", False), False)
    world.tick()
    assert [len(promises) for promises in world.source.asked] == [3]


def test_only_those_it_decides_for() -> None:
    for spec in (
        {"autoscaling": {"mode": "None"}},
        {"managementPolicy": "Paused"},
        {"monitoring": {"intervalSeconds": 60}},
    ):
        world = World()
        try:
            world.add(**spec)
        except ValueError:  # a spec that cannot be used has no children either
            world.cache.saw(api.TTS_SERVICE, tts_service(**spec), False)
        assert world.tick() == []
        assert world.source.asked == []
        assert world.ticker.decisions == {}


def test_nothing_for_a_deployment_that_is_not_ours() -> None:
    world = World()
    world.add()
    world.cache.deployments[KEY]["metadata"]["ownerReferences"] = []
    world.tick()
    assert world.ticker.decisions == {}


def test_news_is_told_once_and_numbers_once_a_minute() -> None:
    world = World()
    world.add()
    assert world.tick() == [KEY]
    for number in range(1, 4):
        world.source.answer = {KEY: replace(CALM, p99=0.5 + number / 10)}
        assert world.tick() == []
    assert world.tick() == [KEY]
    assert [world.tick() for _ in range(20)] == [[]] * 20


def test_idle_for_an_hour_wakes_nobody() -> None:
    """Pods that wait for a GPU, nothing to measure: 240 ticks, one wake-up."""
    world = World()
    world.add()
    world.cache.pods.clear()
    world.cache.saw(api.POD, pod("p", unschedulable="0/1 nodes are available"), False)
    world.source.answer = {}
    assert world.tick() == [KEY]
    assert [world.tick() for _ in range(240)] == [[]] * 240
    assert world.ticker.decisions[KEY].reason == "Unschedulable"


def test_prometheus_away_holds_and_beside_it_the_same_with_prometheus_scales_in() -> None:
    def story(away: bool) -> int:
        world = World()
        world.add(replicas=2)
        idle = Metrics(0.0, 0.0, 0.0, 0.0, None, None, False, 0.0, 3.0, 2)
        world.source.answer = {KEY: idle}
        world.tick()
        world.source.away = away
        for _ in range(40):
            world.tick()
            if world.ticker.decisions[KEY].desired < 2:
                break
        assert bool(world.failures) == away
        return world.ticker.decisions[KEY].desired

    assert story(away=False) == 1
    assert story(away=True) == 2


def test_what_is_remembered_survives_a_restart() -> None:
    world = World()
    hold = datetime.fromtimestamp(NOW + 100, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    world.add(status={"autoscaling": {"holdUntil": hold, "learnedQpsPerReplica": "20"}})
    world.source.answer = {KEY: replace(CALM, breach=True, p99=2.0, completed=20.0)}
    world.tick()
    assert world.ticker.decisions[KEY].desired == 1  # held
    assert world.ticker.decisions[KEY].state.learned_qps == 20.0
    world.start_operator()
    world.tick(100)
    assert world.ticker.decisions[KEY].desired == 2


def test_a_service_made_anew_does_not_inherit() -> None:
    world = World()
    world.add(status={"autoscaling": {"learnedQpsPerReplica": "20"}})
    world.tick()
    assert world.ticker.decision_of(KEY, "uid-demo") == world.ticker.decisions[KEY]
    body = tts_service(uid="uid-new")
    world.cache.saw(api.TTS_SERVICE, body, False)
    world.cache.saw(api.DEPLOYMENT, deployment(parse(body, DEFAULTS), 1, "image:1", False), False)
    assert world.ticker.decision_of(KEY, "uid-new") is None  # before the next tick
    world.tick()
    decision = world.ticker.decision_of(KEY, "uid-new")
    assert decision is not None
    assert decision.state.learned_qps is None


@pytest.mark.parametrize("text", ["nan", "inf", "-5", "many"])
def test_what_cannot_have_been_learned_is_unknown(text: str) -> None:
    world = World()
    world.add(status={"autoscaling": {"learnedQpsPerReplica": text, "ineffectiveSteps": text, "floorTime": 3}})
    world.tick()
    assert world.ticker.decisions[KEY].state.learned_qps is None


@pytest.mark.parametrize("where", ["parse", "decide"])
def test_an_error_of_one_service_leaves_the_others_alone(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug holds the number of the one it is about, and is told."""
    world = World()
    world.add()
    other = api.Key("default", "other")
    body = tts_service("other", "uid-other")
    world.cache.saw(api.TTS_SERVICE, body, False)
    world.cache.saw(api.DEPLOYMENT, deployment(parse(body, DEFAULTS), 1, "image:1", False), False)
    world.tick()
    assert set(world.ticker.decisions) == {KEY, other}

    real = getattr(ticker, where)

    def broken(subject: Any, *rest: Any) -> Any:
        target = subject["spec"].get("autoscaling", {}) if where == "parse" else {"maxReplicas": subject.max_replicas}
        if target.get("maxReplicas") == 99:
            raise ArithmeticError
        return real(subject, *rest)

    monkeypatch.setattr(ticker, where, broken)
    edited = tts_service(autoscaling={"maxReplicas": 99})
    edited["metadata"]["generation"] = 2
    world.cache.saw(api.TTS_SERVICE, edited, False)
    woken = world.tick()
    assert set(world.ticker.decisions) == {other}
    assert (KEY in woken) == (where == "decide")
    monkeypatch.setattr(ticker, where, real)
    world.tick()
    assert set(world.ticker.decisions) == {KEY, other}


def test_nothing_stays_of_services_that_are_gone() -> None:
    world = World()
    world.add()
    world.tick()
    world.cache.forget(KEY)
    world.tick()
    for name in ("decisions", "_states", "_told", "_specs", "_uids"):
        assert getattr(world.ticker, name) == {}, name
