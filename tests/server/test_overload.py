"""Rows R1, R2, R4 and R14 in their short forms: a server process under more load than it can carry, and told to end.

The engine is a process of its own that hums: 4 rows of 20 ms a step are 4 audio seconds a second. So little that ten
times as much is no load for the machine: what is measured is what the server decides, not how busy its neighbours are.
"""

import asyncio
import json
import random
import resource
import signal
import time
from collections import Counter
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from bench.client import Client, Speech
from bench.loadgen import Load
from bench.plan import read_plan
from tests.server.harness import speech, until
from tests.server.test_process import start  # noqa: F401  the fixture

pytestmark = pytest.mark.engine
ENGINE = ("--step-seconds", "0.02", "--rows", "4", "--throughput", "4")
AUDIO = 0.5  # seconds, of each request
CAPACITY = 7.5  # requests a second, a little less than the engine does
SLO = 1.2
# For p99 <= 1.5 SLO the wait must leave room for the making: ADR 9.
LIMITS = {"CHATTTS_MAX_QUEUE_WAIT_MILLISECONDS": "1000", "CHATTTS_SLO_MILLISECONDS": "1200"}


def percentile(values, q):
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


async def offered(url, rate, seconds, retries=0):
    """The load generator's own Load, and how long each refusal took."""
    flags = ["--rate", str(rate), "--seconds", str(seconds), "--max-seconds", str(AUDIO), "--text", "今天天气很好"]
    plan = read_plan(["--url", url, *flags, "--retries", str(retries), "--request-seeds", "--keep-alive"])
    client, refused = TimedClient(url, plan.speech), []
    client.refused = refused
    load = Load(plan, client)
    await load.send_all()
    await load.finish()
    await client.aclose()
    return load, refused


class TimedClient(Client):
    """Keeps its connections, as clients behind a gateway do."""

    def __init__(self, url, speech):
        super().__init__(url, speech, timeout_seconds=30, keep_alive=True)

    async def speak(self, text, seed=None):
        began = time.monotonic()
        answer = await super().speak(text, seed)
        if answer.kind == "rejected_429":
            self.refused.append(time.monotonic() - began)
        return answer


async def probed(url, ended):
    """How long /livez takes, ten times a second, until `ended` is set."""
    took = []
    async with aiohttp.ClientSession() as session:
        while not ended.is_set():
            began = time.monotonic()
            async with session.get(url + "/livez") as answer:
                assert answer.status == 200
                await answer.read()
            took.append(time.monotonic() - began)
            await asyncio.sleep(0.1)
    return took


def resident_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


async def overload(server, seconds, rate=10 * CAPACITY):
    """(the load's tally, times of refusals, of /livez, growth of the memory) of ten times what can be done."""
    url, ended = server.url, asyncio.Event()
    await offered(url, CAPACITY, 2)  # warm
    before = resident_bytes(server.process.pid)
    probing = asyncio.create_task(probed(url, ended))
    load, refused = await offered(url, rate, seconds)
    ended.set()
    return load.tally, refused, await probing, resident_bytes(server.process.pid) - before


def holds(tally, refused, probes, grown, seconds, q):
    """`q`: 0.99, the bar itself, on a calm machine; beside other tests only the median says anything."""
    kinds, latencies = tally.kinds, tally.latencies
    figures = (
        f"{dict(kinds)}; admitted p99 {percentile(latencies, 0.99):.2f} s, "
        f"refused p99 {percentile(refused, 0.99) * 1e3:.0f} ms, "
        f"livez p99 {percentile(probes, 0.99) * 1e3:.0f} ms, grown {grown / 2**20:.1f} MiB, "
        f"client's own lag p99 {percentile(tally.lags, 0.99) * 1e3:.0f} ms"
    )
    print(figures)
    assert set(kinds) == {"ok", "rejected_429"}, figures
    assert kinds["ok"] >= 0.6 * CAPACITY * seconds, figures
    assert percentile(latencies, q) <= 1.5 * SLO, figures
    assert percentile(probes, q) < 0.1, figures
    assert percentile(refused, q) < 0.05, figures
    assert grown < 20 * 2**20, figures


async def is_back(server):
    """At half of what can be done nobody is refused, within ten seconds."""
    await asyncio.sleep(5)
    load, _ = await offered(server.url, CAPACITY / 2, 5)
    assert set(load.tally.kinds) == {"ok"}
    assert percentile(load.tally.latencies, 0.5) <= SLO


async def test_r02_r14_ten_times_too_much_for_ten_seconds(start):  # noqa: F811
    server = start(*ENGINE, **LIMITS)
    server.line("engine ready")
    holds(*await overload(server, 10), seconds=10, q=0.5)
    await is_back(server)


@pytest.mark.long
async def test_r02_r14_ten_times_too_much_for_two_minutes(start):  # noqa: F811
    server = start(*ENGINE, **LIMITS)
    server.line("engine ready")
    holds(*await overload(server, 120), seconds=120, q=0.99)
    await is_back(server)


async def test_a_retry_after_holds_in_a_real_server(start):  # noqa: F811
    """Three times too much for 8 s, then half: who was refused and came as told got in."""
    server = start(*ENGINE, **LIMITS)
    server.line("engine ready")
    overloaded, _ = await asyncio.gather(
        offered(server.url, 3 * CAPACITY, 8, retries=1), later(offered, server.url, CAPACITY / 2, 12)
    )
    retries = overloaded[0].tally.retries
    print(retries)
    assert retries.missing == 0
    assert retries.longest_s <= 60
    assert retries.obeyed > 40
    assert retries.admitted >= 0.95 * retries.obeyed


async def later(act, *arguments):
    await asyncio.sleep(8)
    return await act(*arguments)


# R1: SIGTERM under load with open streams


async def steady(url, number, until_refused, seconds, kinds):
    """A client in a closed loop, every fourth one a stream, until the server says that it ends."""
    client = Client(url, Speech(stream=number % 4 == 0, max_seconds=seconds), timeout_seconds=30, keep_alive=True)
    while not until_refused.is_set():
        answer = await client.speak("今天天气很好")
        kinds[answer.kind] += 1
        if answer.kind in ("status_503", "connect"):
            until_refused.set()
    await client.aclose()


async def is_ready(session, url):
    try:
        async with session.get(url + "/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientConnectionError:
        return False


async def rolled(server, minimum):
    """Clients at full load through a SIGTERM; (what became of each request, seconds to unready, to the exit)."""
    url, kinds, gone = server.url, Counter(), asyncio.Event()
    server.line("engine ready")
    clients = [asyncio.create_task(steady(url, number, gone, 0.4, kinds)) for number in range(6)]
    while kinds["ok"] < minimum:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    server.process.send_signal(signal.SIGTERM)
    told = time.monotonic()
    async with aiohttp.ClientSession() as session:
        while await is_ready(session, url):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    unready = time.monotonic() - told
    await asyncio.gather(*clients)
    code = await asyncio.to_thread(server.wait, 30)
    return kinds, unready, time.monotonic() - told, code


@pytest.mark.parametrize("requests", [300, pytest.param(10_000, marks=pytest.mark.long)])
async def test_r01_no_request_is_lost_or_cut_when_the_server_is_told_to_end(start, requests):  # noqa: F811
    """`status_503` and `connect` are what comes after: another server would have served them."""
    kinds, unready, ended, code = await rolled(start("--step-seconds", "0.002", CHATTTS_DRAIN_SECONDS="20"), requests)
    print(dict(kinds), f"unready after {unready:.2f} s, ended after {ended:.1f} s")
    assert kinds["ok"] >= requests
    assert set(kinds) <= {"ok", "status_503", "connect"}
    assert unready <= 1.0
    assert (code, ended < 20) == (0, True)


async def test_r01_the_same_without_a_drain_cuts(start):  # noqa: F811
    """With no time to drain the same clients lose what was under way: the test above can fail."""
    kinds, _, _, _ = await rolled(start("--step-seconds", "0.01", CHATTTS_DRAIN_SECONDS="0"), 30)
    assert set(kinds) & {"cut", "reset", "status_500"}


# R4: clients leave


async def left(session, url, body, seconds):
    """Leaves after so long, wherever the answer is then."""
    try:
        async with asyncio.timeout(seconds), session.post(url, json=body) as answer:
            await answer.read()
    except TimeoutError:
        return "left"
    return "stayed"


async def crowd_that_leaves(running, requests, chooser):
    """Half of them leave at random points. Returns how many did, and the sound of all who stayed."""
    url = f"http://127.0.0.1:{running.port}/v1/audio/speech"
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(number):
            streamed = {"stream_format": "audio"} if number % 3 else {}
            body = {"input": "今天天气很好", "seed": number % 7, "max_seconds": 1, "response_format": "pcm", **streamed}
            await asyncio.sleep(chooser.random() * requests / 120)
            if number % 2:
                return await left(session, url, body, chooser.uniform(0.0, 0.3))
            async with session.post(url, json=body) as answer:
                assert answer.status == 200
                return number % 7, await answer.read()

        return await asyncio.gather(*(one(number) for number in range(requests)))


@pytest.mark.parametrize("requests", [120, pytest.param(1000, marks=pytest.mark.long)])
async def test_r04_half_of_the_clients_leave_and_their_mates_are_unchanged(serve, requests):
    flags = ("--step-seconds", "0.003", "--rows", "8")
    async with serve(*flags, max_queue_wait_milliseconds="60000") as running:
        synthesis = running.server.synthesis
        alone = {}
        for seed in range(7):
            answer = await speech(running, "今天天气很好", seed=seed, max_seconds=1, response_format="pcm")
            alone[seed] = answer.content
        ends = await crowd_that_leaves(running, requests, random.Random(requests))
        assert ends.count("left") > requests / 4
        stayed = [end for end in ends if isinstance(end, tuple)]
        assert len(stayed) == requests / 2
        assert [seed for seed, sound in stayed if sound != alone[seed]] == []
        began = time.monotonic()
        await until(lambda: not synthesis.engine._rows and not synthesis.admission.inflight, 5)
        assert time.monotonic() - began < 1.0
        assert (synthesis.queue._inside, synthesis.queue.waiting, synthesis.admission.audio_seconds) == (0, 0, 0)
        again = await speech(running, "今天天气很好", seed=3, max_seconds=1, response_format="pcm")
        assert again.content == alone[3]


async def test_r04_a_row_stops_within_100_ms_of_its_client_leaving(serve, tmp_path):
    """Steps of 5 ms: the log says after how many the row was stopped."""
    log = tmp_path / "log"
    async with serve("--step-seconds", "0.005", "--log", str(log)) as running:
        url = f"http://127.0.0.1:{running.port}/tts"
        async with aiohttp.ClientSession() as session:
            for _ in range(5):
                assert await left(session, url, {"text": "好", "max_seconds": 20}, 0.4) == "left"
                await asyncio.sleep(0.1)
            await speech(running, max_seconds=0.1)
    stopped = [int(line.split()[-1]) for line in log.read_text().splitlines() if line.startswith("stopped")]
    assert len(stopped) == 5
    assert np.max(stopped) * 0.005 <= 0.4 + 0.1


def test_the_log_of_a_server_is_json_without_exception(start):  # noqa: F811
    server = start()
    server.line("engine ready")
    server.post(text="好", max_seconds=0.1)
    told = server.line("request")
    assert (told["route"], told["status"], told["level"]) == ("/tts", 200, "info")
    assert all(isinstance(json.loads(line), dict) for line in server.log)
