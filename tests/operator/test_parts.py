"""The small parts: settings, command line, comparing, cache, hearing, health, events, informers."""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.error
import urllib.request
from typing import Any

import kopf
import pytest

from chattts_operator import api, cli, informers
from chattts_operator.autoscaling.signals import ColdStart, Decision, State
from chattts_operator.cache import Cache, Known
from chattts_operator.compare import difference
from chattts_operator.config import ConfigError, load
from chattts_operator.events import send
from chattts_operator.health import Health
from chattts_operator.hearing import Hearing
from chattts_operator.metrics import Metrics
from chattts_operator.notes import Note
from chattts_operator.observe import fleet_of, pod_of
from chattts_operator.quantities import parse_quantity, same_quantity
from tests.operator.control_plane import free_port
from tests.operator.fakes import FakeKube, pod, tts_service

KEY = api.Key("default", "demo")


# --- settings ---


def test_flag_wins_over_environment_and_empty_is_unset() -> None:
    environment = {
        "CHATTTS_OPERATOR_PROMETHEUS_URL": "http://a:9090/",
        "CHATTTS_OPERATOR_WATCH_NAMESPACES": "a, b,a",
        "CHATTTS_OPERATOR_MONITORING_LABELS": '{"release": "x"}',
        "CHATTTS_OPERATOR_SCALING_INTERVAL_SECONDS": "",
    }
    config = load(environment, {"prometheus_url": "http://b:9090"})
    assert config.prometheus_url == "http://b:9090"
    assert config.watch_namespaces == ("a", "b")
    assert config.monitoring_labels == {"release": "x"}
    assert config.scaling_interval_seconds == 10


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prometheus_url", "prometheus:9090"),
        ("monitoring_labels", "release=x"),
        ("monitoring_labels", '{"a": 1}'),
        ("scaling_interval_seconds", "0"),
        ("scaling_interval_seconds", "61"),
        ("workers", "many"),
        ("log_format", "xml"),
        ("health_port", "70000"),
    ],
)
def test_a_bad_value_names_key_value_and_rule(name: str, value: str) -> None:
    variable = "CHATTTS_OPERATOR_" + name.upper()
    with pytest.raises(ConfigError) as caught:
        load({variable: value}, {})
    assert str(caught.value).startswith(f"{variable}={value!r}: must be ")
    with pytest.raises(ConfigError, match="--" + name.replace("_", "-")):
        load({}, {name: value})


def test_a_bad_value_ends_the_start_with_78(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--workers", "0"]) == 78
    assert capsys.readouterr().err == "chattts-operator: --workers='0': must be a whole number from 1 to 64\n"


# --- quantities and comparing ---


@pytest.mark.parametrize(("left", "right"), [("1000m", 1), ("0.5", "500m"), ("1024Mi", "1Gi"), ("1e3", "1k"), (2, "2")])
def test_equal_quantities(left: Any, right: Any) -> None:
    assert same_quantity(left, right)


@pytest.mark.parametrize(("left", "right"), [("1", "1Gi"), (True, 1), ("a", "a"), ("", ""), (None, 0), ("1G", "1Gi")])
def test_unequal_or_no_quantities(left: Any, right: Any) -> None:
    assert not same_quantity(left, right)


@pytest.mark.parametrize("text", ["", "m", "1 Gi", "--1", "1gi", "NaN", "e3"])
def test_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        parse_quantity(text)


@pytest.mark.parametrize("text", ["1e1000000", "1E999999999999", "-9e1000000"])
def test_too_large_a_quantity_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        parse_quantity(text)
    assert not same_quantity(text, 1)


@pytest.mark.parametrize(
    ("intent", "live", "path"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, None),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, ".a.b"),
        ({"a": 1}, {}, ".a"),
        ({"a": {}, "b": [], "c": False, "d": "", "e": None}, {}, None),
        ({"a": 0}, {}, ".a"),
        ({"env": [{"name": "b"}, {"name": "a"}]}, {"env": [{"name": "x"}, {"name": "a"}, {"name": "b"}]}, None),
        ({"env": [{"name": "a", "value": "1"}]}, {"env": [{"name": "a", "value": "2"}]}, ".env[0].value"),
        ({"env": [{"name": "a"}]}, {"env": []}, ".env[0]"),
        ({"args": ["a", "b"]}, {"args": ["b", "a"]}, ".args[0]"),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "a"}, {"key": "b"}]}, ".tolerations"),
        (
            {"ports": [{"port": 80, "protocol": "TCP"}]},
            {"ports": [{"port": 80, "protocol": "TCP", "nodePort": 1}]},
            None,
        ),
        ({"ports": [{"port": 80, "protocol": "TCP"}]}, {"ports": "x"}, ".ports"),
        ({"limits": {"cpu": "1000m"}}, {"limits": {"cpu": "1"}}, None),
        ({"a": {"b": 1}}, {"a": 1}, ".a"),
        ({"a": True}, {"a": 1}, None),
    ],
)
def test_difference(intent: Any, live: Any, path: str | None) -> None:
    assert difference(intent, live) == path


# --- cache and hearing ---


def test_the_cache_wakes_for_what_matters() -> None:
    cache = Cache()
    body = tts_service()
    body["metadata"]["managedFields"] = [{}]
    assert cache.saw(api.TTS_SERVICE, body, False) == KEY
    assert "managedFields" not in cache.services[KEY]["metadata"]
    waiting = pod("a")
    assert cache.saw(api.POD, waiting, False) == KEY
    assert cache.saw(api.POD, {**waiting, "status": {**waiting["status"], "message": "x"}}, False) is None
    assert cache.saw(api.POD, pod("a", unschedulable="no node"), False) == KEY
    assert cache.saw(api.POD, pod("a"), True) == KEY
    assert cache.pods == {}
    assert cache.saw(api.SERVICE, {"metadata": {"namespace": "default", "name": "demo"}}, True) == KEY
    assert cache.saw(api.TTS_SERVICE, body, True) == KEY
    assert cache.services == {}


def test_a_deaf_informer_is_found_and_healed() -> None:
    kube, cache, woken = FakeKube(), Cache(), []
    hearing = Hearing(kube, cache, (), woken.append)

    def test(now: float) -> float:
        asyncio.run(hearing.test(now))
        return hearing.deaf_seconds(now)

    cache.saw(api.TTS_SERVICE, kube.put(api.TTS_SERVICE, tts_service()), False)
    assert test(0) == 0
    kube.edit(api.TTS_SERVICE, KEY, lambda body: body["spec"].update(replicas=3))
    assert (test(60), woken) == (0, [KEY])
    assert test(120) == 60  # the same version, still unheard
    assert test(240) == 180
    cache.saw(api.TTS_SERVICE, kube.at(api.TTS_SERVICE, KEY), False)
    assert test(300) == 0
    kube.remove(api.TTS_SERVICE, *KEY)
    woken.clear()
    assert (test(360), woken, cache.services) == (0, [KEY], {})


def test_children_that_went_while_nobody_watched_are_taken_out() -> None:
    kube, cache, woken = FakeKube(), Cache(), []
    hearing = Hearing(kube, cache, (), woken.append)
    child = {"metadata": {"namespace": "default", "name": "demo", "labels": api.labels("demo")}, "spec": {}}
    child["spec"] = {"template": {"spec": {"containers": []}}}
    for kind, body in ((api.DEPLOYMENT, child), (api.POD, pod("a")), (api.POD, pod("b"))):
        cache.saw(kind, kube.put(kind, body), False)
    asyncio.run(hearing.test(0))
    assert (woken, set(cache.pods[KEY]), set(cache.deployments)) == ([], {"uid-a", "uid-b"}, {KEY})
    kube.remove(api.POD, "default", "a")
    asyncio.run(hearing.test(60))
    assert (woken, set(cache.pods[KEY])) == ([KEY], {"uid-b"})
    kube.remove(api.DEPLOYMENT, *KEY)
    asyncio.run(hearing.test(120))
    assert (woken, cache.deployments) == ([KEY, KEY], {})


def test_a_copied_deployment_does_not_take_the_place_of_ours() -> None:
    """`kubectl get deployment demo -o yaml`, another name, `kubectl apply`: our labels are on it."""
    kube, cache, woken = FakeKube(), Cache(), []
    hearing = Hearing(kube, cache, (), woken.append)

    def body(name: str, replicas: int) -> dict[str, Any]:
        spec = {"replicas": replicas, "template": {"spec": {"containers": []}}}
        return {"metadata": {"namespace": "default", "name": name, "labels": api.labels("demo")}, "spec": spec}

    assert cache.saw(api.DEPLOYMENT, kube.put(api.DEPLOYMENT, body("demo", 2)), False) == KEY
    copied = kube.put(api.DEPLOYMENT, body("demo-copy", 7))
    for deleted in (False, True):
        assert cache.saw(api.DEPLOYMENT, copied, deleted) is None
        assert cache.deployments[KEY]["spec"]["replicas"] == 2
    asyncio.run(hearing.test(0))
    assert (woken, set(cache.deployments)) == ([], {KEY})
    kube.remove(api.DEPLOYMENT, *KEY)
    asyncio.run(hearing.test(60))
    assert (woken, cache.deployments) == ([KEY], {})


def test_what_appears_while_the_list_is_on_its_way_stays() -> None:
    cache = Cache()
    cache.saw(api.POD, pod("old"), False)
    before = cache.known(KEY)
    cache.saw(api.POD, pod("new"), False)
    cache.saw(api.DEPLOYMENT, {"metadata": {"namespace": "default", "name": "demo", "uid": "d"}}, False)
    assert cache.drop_gone(KEY, before, Known())
    assert (set(cache.pods[KEY]), set(cache.deployments)) == ({"uid-new"}, {KEY})


# --- the pods as the policy sees them ---


def test_fleet() -> None:
    pods = [
        pod("old", ready_at="2026-01-01T00:00:00Z", scheduled_at="2025-12-31T23:59:00Z"),
        pod("new", ready_at="2026-01-01T00:09:30Z", scheduled_at="2026-01-01T00:09:00Z"),
        pod("stuck", unschedulable="no GPU"),
        pod("starting", scheduled_at="2026-01-01T00:09:55Z"),
        {**pod("done"), "status": {"phase": "Failed"}},
    ]
    pods[3]["metadata"]["deletionTimestamp"] = None
    deployment = {"metadata": {"generation": 2}, "spec": {"replicas": 5}}
    now = pod_of(pods[0]).ready_at + 600  # type: ignore[operator]
    seen = fleet_of(deployment, [pod_of(item) for item in pods], now)
    assert (seen.committed, seen.ready, seen.ready_a_minute, seen.unschedulable, seen.pending) == (5, 2, 1, 1, 2)
    assert seen.cold_start == ("uid-new", ColdStart(30.0))
    assert seen.last_ready_at == now - 30
    assert seen.rolling_out  # the controller has not seen this generation


@pytest.mark.parametrize(("status", "unschedulable", "pending"), [("True", 3, 0), ("False", 1, 2)])
def test_pods_that_are_refused_are_not_on_their_way(status: str, unschedulable: int, pending: int) -> None:
    """Of five, one is Ready, one has no node, one leaves; the API server refuses the other three, or it did once."""
    pods = [pod_of(pod("ready", ready_at="2026-01-01T00:00:00Z")), pod_of(pod("stuck", unschedulable="no GPU"))]
    leaving = pod("leaving")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    failure = {"type": "ReplicaFailure", "status": status, "message": "exceeded quota"}
    deployment = {"metadata": {}, "spec": {"replicas": 4}, "status": {"conditions": [failure]}}
    seen = fleet_of(deployment, [*pods, pod_of(leaving)], 0.0)
    assert (seen.committed, seen.ready, seen.unschedulable, seen.pending) == (4, 1, unschedulable, pending)


def test_a_pod_that_flaps_does_not_look_new() -> None:
    cache = Cache()
    deployment = {"metadata": {}, "spec": {"replicas": 1}}
    scheduled = "2026-01-01T00:00:00Z"
    cache.saw(api.POD, pod("a", ready_at="2026-01-01T00:01:00Z", scheduled_at=scheduled), False)
    first = fleet_of(deployment, cache.pods_of(KEY), 0.0)
    cache.saw(api.POD, pod("a", scheduled_at=scheduled), False)
    assert fleet_of(deployment, cache.pods_of(KEY), 0.0).ready == 0
    cache.saw(api.POD, pod("a", ready_at="2026-01-01T00:30:00Z", scheduled_at=scheduled), False)
    again = fleet_of(deployment, cache.pods_of(KEY), 0.0)
    assert (again.ready, again.last_ready_at, again.cold_start) == (1, first.last_ready_at, ("uid-a", ColdStart(60.0)))


def test_a_pod_past_its_deadline_is_not_pending() -> None:
    deployment = {"metadata": {}, "spec": {"replicas": 1}}
    starting = pod_of(pod("a", scheduled_at="2026-01-01T00:00:00Z"))
    at = starting.scheduled_at or 0.0
    assert fleet_of(deployment, [starting], at + 900, 900).pending == 1
    assert fleet_of(deployment, [starting], at + 901, 900).pending == 0


def test_committed_is_what_we_wrote() -> None:
    deployment = {"metadata": {"labels": {api.LABEL_REPLICAS: "2"}}, "spec": {"replicas": 7}}
    assert fleet_of(deployment, [], 0.0).committed == 2


@pytest.mark.parametrize("text", ["\N{SUPERSCRIPT TWO}", "9" * 5000, "-1", "two", ""])
def test_committed_without_a_number_of_ours_is_the_live_one(text: str) -> None:
    deployment = {"metadata": {"labels": {api.LABEL_REPLICAS: text}}, "spec": {"replicas": 7}}
    assert fleet_of(deployment, [], 0.0).committed == 7


# --- events and health ---


def test_an_event_is_said_once() -> None:
    kube, service = FakeKube(), tts_service()

    async def say(note: Note, now: float) -> None:
        await send(kube, service, note, now)

    for now in (0.0, 10.0):
        asyncio.run(say(Note("ScaledOut", "1 -> 2", occasion="t1"), now))
    assert len(kube.events) == 1
    asyncio.run(say(Note("ScaledOut", "1 -> 2", occasion="t2"), 20.0))
    assert len(kube.events) == 2
    assert kube.events[0]["involvedObject"]["uid"] == "uid-demo"


def test_a_change_is_counted_once() -> None:
    metrics = Metrics()

    def tick(committed: int, desired: int) -> float | None:
        decision = Decision(committed, desired, "SLOBreach", "", State())
        metrics.decided({KEY: decision})
        labels = {"direction": "out", "reason": "SLOBreach"}
        return metrics.registry.get_sample_value("chattts_operator_scale_total", labels)

    assert [tick(1, 2), tick(1, 2), tick(2, 2), tick(2, 3), tick(3, 3), tick(2, 3)] == [1, 1, 1, 2, 2, 3]


def test_health() -> None:
    now = [0.0]
    health = Health(lambda: now[0])
    assert health.answer("/healthz") == (200, "ok")
    assert health.answer("/readyz")[0] == 503
    health.report((), ready=True)
    assert health.answer("/readyz") == (200, "ok")
    health.report(("the scaling tick is late by 80 s",), ready=True)
    assert health.answer("/healthz") == (500, "the scaling tick is late by 80 s")
    health.report((), ready=True)
    now[0] = 31.0
    status, text = health.answer("/healthz")
    assert (status, "silent" in text) == (500, True)
    assert health.answer("/other")[0] == 404


def test_health_is_served_beside_the_loop() -> None:
    health = Health(lambda: 0.0)
    port = free_port()
    stop = health.serve(port)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            assert answer.read() == b"ok\n"
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5)
        caught.value.close()
    finally:
        stop()


# --- informers ---


def test_only_event_handlers_that_write_nothing() -> None:
    registry = informers.registry((api.TTS_SERVICE, *api.CHILD_KINDS, api.POD), lambda *_: None, in_pod=False)
    assert len(registry._watching.get_all_handlers()) == 2 + len(api.CHILD_KINDS)
    for kind in (registry._changing, registry._spawning, registry._webhooks, registry._indexing):
        assert not kind.get_all_handlers()


def test_the_servers_filter_is_in_effect() -> None:
    """One form of the key silently matches nothing: ask kopf itself."""
    selectors = informers.settings().watching.label_selectors
    for kind in (*api.CHILD_KINDS, api.POD):
        resource = kopf._cogs.structs.references.Resource(kind.group, kind.version, kind.plural)
        assert selectors.collect(resource) == [api.CHILD_SELECTOR], kind
    service = kopf._cogs.structs.references.Resource(api.GROUP, api.VERSION, "ttsservices")
    assert selectors.collect(service) == []


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    record = logging.LogRecord("a", logging.INFO, "", 0, "%s is 语音", ("it",), None)
    line = json.loads(cli._JsonLines().format(record))
    assert (line["message"], line["level"]) == ("it is 语音", "info")
