"""The door to Prometheus: what counts as an answer. A real HTTP server on loopback plays Prometheus."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from chattts_operator import api
from chattts_operator.autoscaling import prometheus, rules
from chattts_operator.autoscaling.prometheus import Prometheus, PrometheusError, series_of
from chattts_operator.autoscaling.rules import Promise

KEY = api.Key("n", "s")
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def vector(*samples: tuple[dict[str, str], str], **extra: Any) -> bytes:
    result = [{"metric": labels, "value": [0, value]} for labels, value in samples]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}, **extra}).encode()


ONE = {"namespace": "n", "tts_service": "s"}


def test_a_vector_by_service() -> None:
    assert series_of(200, vector((ONE, "1.5"), ({"job": "other"}, "1"))) == {(KEY, ""): 1.5}


def test_two_series_for_one_service_are_none() -> None:
    twice = vector(({**ONE, "replica": "a"}, "1"), ({**ONE, "replica": "b"}, "1"))
    assert series_of(200, twice) == {(KEY, ""): None}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"oops"),
        (200, b"oops"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"status": "success", "data": {"resultType": "vector"}}'),
        (200, b'{"status": "success", "data": {"resultType": "matrix", "result": []}}'),
        (200, b'{"status": "error", "error": "too many samples"}'),
        (200, vector((ONE, "text"))),
        (200, vector((ONE, "1"), warnings=["partial response"])),
        (302, vector((ONE, "1"))),
    ],
)
def test_what_is_no_answer(status: int, body: bytes) -> None:
    with pytest.raises(PrometheusError):
        series_of(status, body)


def test_notes_of_prometheus_are_no_warnings() -> None:
    assert series_of(200, vector((ONE, "1"), infos=["metric might not be a counter"])) == {(KEY, ""): 1.0}


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf"])
def test_nan_is_unknown(value: str) -> None:
    signals = {name: series_of(200, vector((ONE, value))) for name in rules.queries([Promise()])}
    assert prometheus.metrics_of(KEY, Promise(), signals) == prometheus.Metrics()


def test_the_record_wins_and_another_promise_never_counts() -> None:
    ours, other = Promise(milliseconds=2000), Promise()
    direct = {**ONE, rules.PROMISE_LABEL: str(ours)}
    wrong = {**ONE, rules.PROMISE_LABEL: str(other)}

    def breach(*samples: tuple[dict[str, str], str]) -> bool | None:
        signals = {name: series_of(200, vector(*samples)) for name in rules.queries([ours, other])}
        return prometheus.metrics_of(KEY, ours, signals).breach

    assert breach((direct, "0"), (wrong, "1")) is False
    assert breach((wrong, "1")) is None
    assert breach((ONE, "1"), (direct, "0")) is True
    assert breach((ONE, "0.5")) is None


class Server:
    """Answers every query as the test says."""

    def __init__(self) -> None:
        self.queries: list[str] = []
        self.answer: Answer | None = None
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.queries.append((await request.post())["query"])  # type: ignore[arg-type]
        if self.answer is not None:
            return await self.answer(request)
        return web.Response(body=vector((ONE, "1")), content_type="application/json")


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    application = web.Application()
    application.router.add_post("/api/v1/query", made.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


async def read(server: Server) -> prometheus.Metrics:
    client = Prometheus(server.url)
    try:
        return (await client.read({KEY: Promise()}))[KEY]
    finally:
        await client.close()


async def test_one_query_per_signal(server: Server) -> None:
    found = await read(server)
    assert (found.p99, found.breach, found.reporting) == (1.0, True, 1)
    assert sorted(server.queries) == sorted(rules.queries([Promise()]).values())


async def test_half_an_answer_is_none(server: Server) -> None:
    async def fail_one(request: web.Request) -> web.Response:
        if len(server.queries) == 3:
            return web.Response(status=503)
        return web.Response(body=vector((ONE, "1")))

    server.answer = fail_one
    with pytest.raises(PrometheusError, match="503"):
        await read(server)


async def test_too_late(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await request.content.read()
        await asyncio.sleep(5)
        return response

    server.answer = never
    monkeypatch.setattr(prometheus, "TIMEOUT_SECONDS", 0.2)
    with pytest.raises(PrometheusError, match=r"within 0\.2 s"):
        await read(server)


async def test_too_large(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "MOST_BYTES", 50)
    with pytest.raises(PrometheusError, match="more than 50 bytes"):
        await read(server)


async def test_no_redirect_is_followed(server: Server) -> None:
    async def elsewhere(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": f"{server.url}/api/v1/query?x"})

    server.answer = elsewhere
    with pytest.raises(PrometheusError, match="307"):
        await read(server)


async def test_nobody_there() -> None:
    client = Prometheus("http://127.0.0.1:9")
    with pytest.raises(PrometheusError, match="cannot be reached"):
        await client.read({KEY: Promise()})
    await client.close()
