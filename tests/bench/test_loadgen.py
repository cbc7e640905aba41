"""The open loop against a service that really stalls, refuses and cuts; times are real and short."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bench.client import Speech
from bench.loadgen import Load, run
from bench.plan import Plan, read_plan
from bench.texts import BUILT_IN
from tests.bench.fake_service import FakeService, cut_in_the_middle, serving

ROOT = Path(__file__).parents[2]


def plan(service: FakeService, **changes: Any) -> Plan:
    base = Plan(
        url=service.url,
        rate=100,
        arrival="constant",
        seconds=1.0,
        seed=1,
        texts=BUILT_IN,
        speech=Speech(max_seconds=1),
        timeout_seconds=5,
    )
    return replace(base, **changes)


async def drive(service: FakeService, **changes: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    lines: list[dict[str, Any]] = []
    async with serving(service):
        summary = await run(plan(service, **changes), lines.append)
    return json.loads(json.dumps(summary, allow_nan=False)), lines


async def test_every_request_is_sent_when_it_is_due_and_counted_once() -> None:
    service = FakeService(delay=0.05)
    summary, lines = await drive(service, seconds=1.3)
    assert summary["requests"] == summary["ok"] == len(service.requests) == 130
    assert (summary["failed"], summary["cut"], summary["rejected_429"], summary["inflight"]) == (0, 0, 0, 0)
    assert summary["stopped_by"] == "duration"
    assert 0.05 <= summary["latency_s"]["p50_s"] < 0.3
    assert summary["client_lag_s"]["p50_s"] < 0.1
    assert summary["audio_seconds"] == pytest.approx(130 * 0.05)
    assert [line["t"] for line in lines] == pytest.approx([1.0], abs=0.3)
    assert lines[0]["sent"] == lines[0]["ok"] + lines[0]["inflight"]
    assert {body["text"] for body in service.requests} <= set(BUILT_IN)
    assert all(body["max_seconds"] == 1 and "seed" not in body for body in service.requests)


async def test_a_stall_of_the_server_shows_in_the_percentiles() -> None:
    """No coordinated omission: half a second in which nothing is answered makes all requests late that were due in
    it, by up to that half second. The same run without the stall has none."""
    released = asyncio.Event()

    async def stall(service: FakeService, request: web.Request, number: int) -> None:
        if number == 20:
            asyncio.get_running_loop().call_later(0.5, released.set)
        if number >= 20:
            await released.wait()

    calm, _ = await drive(FakeService(), seconds=0.7, slo_seconds=0.2)
    stalled, _ = await drive(FakeService(fault=stall), seconds=0.7, slo_seconds=0.2)
    assert stalled["late_share"] > 0.3  # those due in the first 0.3 s of the stall, of 0.7 s
    assert calm["late_share"] < stalled["late_share"] - 0.2
    assert stalled["latency_s"]["p99_s"] > 0.4
    assert stalled["requests"] == calm["requests"] == 70  # the stall held nothing back


async def test_a_stall_of_the_generator_itself_is_charged_to_the_latency() -> None:
    """The loop is blocked for 0.4 s: the requests due meanwhile go out late, and say so."""

    async def block(service: FakeService, request: web.Request, number: int) -> None:
        if number == 30:
            end = asyncio.get_running_loop().time() + 0.4
            while asyncio.get_running_loop().time() < end:  # service and generator share this loop
                pass

    summary, _ = await drive(FakeService(fault=block), seconds=0.8, slo_seconds=0.1)
    assert summary["requests"] == 80
    assert summary["late_share"] > 0.25  # those due in the first 0.3 s of the 0.4 s, not only the few under way
    assert summary["client_lag_s"]["p99_s"] > 0.3
    assert summary["latency_s"]["p99_s"] > 0.3


async def test_over_capacity_latency_grows_although_each_answer_takes_the_same() -> None:
    under, _ = await drive(FakeService(delay=0.01, rows=4), seconds=0.3)
    over, _ = await drive(FakeService(delay=0.1, rows=4), seconds=0.3)
    assert under["latency_s"]["p50_s"] < 0.15
    assert over["latency_s"]["p99_s"] > 0.4  # 40 a second served of 100: the last one is answered at 0.8 s
    assert over["ok"] == 30


async def test_refused_cut_and_failed_are_three_things() -> None:
    async def mixed(service: FakeService, request: web.Request, number: int) -> web.StreamResponse | None:
        if number % 10 == 0:
            return web.json_response({}, status=429, headers={"Retry-After": "1"})
        if number % 10 == 1:
            return await cut_in_the_middle(request)
        return web.Response(status=500) if number % 10 == 2 else None

    summary, _ = await drive(FakeService(fault=mixed), seconds=0.6, rate=50)
    assert (summary["ok"], summary["rejected_429"], summary["cut"], summary["failed"]) == (21, 3, 3, 3)
    assert summary["errors"] == {"cut": 3, "status_500": 3}
    assert summary["retry_after"] == {"seen": 3, "missing": 0, "obeyed": 0, "admitted": 0, "longest_s": 1.0}
    assert summary["scheduled_latency_s"]["p99_s"] is None
    assert summary["late_share"] == pytest.approx(0.3, abs=0.05)


async def test_an_obeyed_retry_after_waits_and_counts_from_the_intended_time() -> None:
    async def refuse_first(service: FakeService, request: web.Request, number: int) -> web.Response | None:
        return web.json_response({}, status=429, headers={"Retry-After": "1"}) if number == 0 else None

    summary, _ = await drive(FakeService(fault=refuse_first), rate=1, seconds=0.5, retries=1)
    assert (summary["requests"], summary["ok"], summary["rejected_429"]) == (1, 1, 0)
    assert (summary["retry_after"]["obeyed"], summary["retry_after"]["admitted"]) == (1, 1)
    assert summary["latency_s"]["max_s"] >= 1.0


async def test_what_is_over_the_bound_in_flight_is_a_failure_of_its_own() -> None:
    summary, _ = await drive(FakeService(delay=0.3), rate=100, seconds=0.2, max_inflight=5)
    assert summary["requests"] == 20
    assert summary["ok"] == 5
    assert summary["errors"] == {"not_sent": 15}


async def test_streams_report_their_first_audio() -> None:
    summary, _ = await drive(FakeService(delay=0.3), rate=50, seconds=0.2, speech=Speech(stream=True))
    assert summary["ok"] == 10
    assert summary["first_audio_s"]["p50_s"] + 0.2 < summary["latency_s"]["p50_s"]


async def test_the_same_seed_sends_the_same_requests() -> None:
    bodies = []
    for seed in (1, 1, 2):
        service = FakeService()
        await drive(service, rate=200, seconds=0.1, seed=seed, request_seeds=True)
        bodies.append([(body["text"], body["seed"]) for body in service.requests])
    assert bodies[0] == bodies[1] != bodies[2]


async def test_a_mistake_in_the_generator_ends_the_run() -> None:
    """A bug must not look like a failed request."""

    class Broken:
        async def speak(self, text: str, seed: int | None) -> None:
            raise KeyError("bug")

    load = Load(plan(FakeService(url="http://unused")), Broken())  # type: ignore[arg-type]
    await load.send_all()
    with pytest.raises(KeyError, match="bug"):
        await load.finish()
    assert load.tally.scheduled < 100


async def signalled(command: list[str], environment: dict[str, str], signals: int, delay: float) -> dict[str, Any]:
    """Starts the generator as a program against a slow service, signals it, and returns exit code and output."""
    service = FakeService(delay=delay)
    async with serving(service):
        process = await asyncio.create_subprocess_exec(
            *command, "--url", service.url, "--rate", "20", "--seconds", "60", "--arrival", "constant",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment,
        )  # fmt: skip
        await asyncio.wait_for(service.seen(5), 10)
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.1)
        out, err = await asyncio.wait_for(process.communicate(), 10)
    lines = [json.loads(line) for line in out.splitlines()]
    return {"code": process.returncode, "err": err.decode(), "served": len(service.requests), **lines[-1]}


async def test_sigterm_sends_no_more_and_finishes_what_is_under_way() -> None:
    """Run the way the demo runs it: `python -m` in the folder that holds bench/."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    ended = await signalled([sys.executable, "-m", "bench.loadgen"], environment, signals=1, delay=0.5)
    assert (ended["code"], ended["err"]) == (0, "")
    summary = ended["summary"]
    assert summary["stopped_by"] == "signal"
    assert summary["inflight"] == summary["failed"] == summary["cut"] == 0
    assert 5 <= summary["ok"] == summary["requests"] == ended["served"] <= 40


async def test_a_second_sigterm_gives_up(tmp_path: Path) -> None:
    """Run as a file, from links such as a ConfigMap's volume makes them."""
    (tmp_path / "bench" / "..data").mkdir(parents=True)
    for module in (ROOT / "bench").glob("*.py"):
        shutil.copy(module, tmp_path / "bench" / "..data")
        (tmp_path / "bench" / module.name).symlink_to(Path("..data") / module.name)
    command = [sys.executable, str(tmp_path / "bench" / "loadgen.py")]
    ended = await signalled(command, {"PATH": os.environ["PATH"]}, signals=2, delay=30)
    assert (ended["code"], ended["err"]) == (0, "")
    assert ended["summary"]["ok"] == 0
    assert ended["summary"]["errors"] == {"abandoned": ended["summary"]["requests"]}


def test_it_needs_nothing_but_aiohttp() -> None:
    """The operator's image has no other package that bench may use."""
    code = (
        "import sys, bench.loadgen, bench.capacity;"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'numpy', 'torch', 'yaml', 'rich', 'msgspec'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--rate 1 --seconds 1", "--url"),
        ("--url https://x --rate 1 --seconds 1", "must be http://"),
        ("--url http://x --rate 0 --seconds 1", "--rate: 0 is not within"),
        ("--url http://x --rate nan --seconds 1", "--rate: nan is not within"),
        ("--url http://x --rate 1 --seconds 1e9", "--seconds: 1e9 is not within"),
        ("--url http://x --rate 1 --seconds 1 --max-inflight 0", "--max-inflight: 0 is not within"),
        ("--url http://x --rate 1 --seconds 1 --arrival bursty", "--arrival"),
        ("--url http://x --rate 1 --seconds 1 --text-file none.txt", "none.txt"),
    ],
)
def test_a_bad_argument_is_named(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        read_plan(arguments.split())
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_texts_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("你好。\n\n hello \n", encoding="utf-8")
    arguments = ["--url", "http://x/", "--rate", "2", "--seconds", "3", "--text-file", str(file)]
    assert read_plan(arguments).texts == ("你好。", "hello")
    assert read_plan(arguments).url == "http://x"
