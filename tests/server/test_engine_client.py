"""The asyncio side against a real process and a real socket; only the model is a fake."""

import asyncio
import os
import signal
import stat
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import pytest_asyncio

from chattts_server.engine import wire
from chattts_server.engine.client import EngineClient, EngineCommand
from chattts_server.engine.nouns import UNLIMITED_CREDIT, Drain, Limits, Phase, Sampling, StepReport, Voice, samples_of
from chattts_server.engine.vocabulary import bert_entries
from chattts_server.errors import DeadlinePassed, EngineFailure, InvalidRequest, NotReady
from tests.server.harness import fake_command, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
ENTRIES = bert_entries()
SECOND = 47  # steps


@asynccontextmanager
async def engine(*flags, watchdog=30.0, wait=True, command=None, **callbacks):
    client = EngineClient(command or fake_command(*flags, watchdog_seconds=watchdog), **callbacks)
    await client.start()
    try:
        if wait:
            async with asyncio.timeout(15):
                await client.ready.wait()
        yield client
    finally:
        await client.stop()


def submit(client, text="好", steps=SECOND, deadline=None, credit=UNLIMITED_CREDIT, window=False, **sampling):
    ids = [ENTRIES.index(character) for character in text]
    return client.submit(ids, Voice(), Sampling(**sampling), Limits(steps), deadline, credit, window)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client():
    """One engine for all tests that do it no harm."""
    async with engine("--step-seconds", "0.0005") as shared:
        yield shared


def dying(code, log):
    """An engine that ends as soon as it is started."""
    return EngineCommand(["sh", "-c", f'echo start >> "{log}"; exit {code}', "engine"], 30.0)


async def samples(row):
    return sum([len(pcm) // 4 async for pcm in row])


def lines(log: Path, wanted: str = ""):
    text = log.read_text() if log.exists() else ""
    return [line for line in text.splitlines() if line.startswith(wanted)]


async def test_a_row_comes_in_chunks_of_at_most_a_second_and_ends(client):
    row = submit(client, steps=150)
    sizes = [len(pcm) // 4 async for pcm in row]
    assert sum(sizes) == samples_of(150)
    assert max(sizes) <= 24000
    assert len(sizes) == 4
    assert (row.finish.reason, row.finish.steps) == ("limit", 150)


async def test_rows_that_come_together_share_their_steps():
    reports = []
    async with engine("--step-seconds", "0.002", on_report=reports.append) as client:
        rows = [submit(client) for _ in range(9)]
        await asyncio.gather(*(samples(row) for row in rows))
    reports = [report for report in reports if isinstance(report, StepReport)]
    assert max(report.rows for report in reports) <= 8
    assert sum(report.audio_seconds for report in reports) == pytest.approx(9 * SECOND / 46.875)
    assert sum(report.steps for report in reports) <= 3 * SECOND


async def test_a_row_joins_the_steps_of_rows_that_run(client):
    long = submit(client, steps=1500)
    await asyncio.sleep(0.05)
    assert await samples(submit(client)) == samples_of(SECOND)
    assert long.finish is None, "the short one did not wait for the end of the long one"
    assert await samples(long) == samples_of(1500)


async def test_without_credit_a_reader_gets_no_more(client):
    row = submit(client, steps=470, credit=24000)
    heard = 0
    while heard < 24000:
        heard += len(await anext(row)) // 4
    assert heard == 24000
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await anext(row)
    row.give_credit(UNLIMITED_CREDIT)  # the same row with credit comes whole
    assert 24000 + await samples(row) == samples_of(470)


async def test_a_row_without_any_credit_is_not_started(tmp_path):
    log = tmp_path / "log"
    async with engine("--log", str(log)) as client:
        waiting = submit(client, credit=0)
        assert await samples(submit(client)) == samples_of(SECOND)
        assert lines(log, "join") == ["join 2"]
        waiting.give_credit(UNLIMITED_CREDIT)
        assert await samples(waiting) == samples_of(SECOND)


async def test_credit_is_renewed_by_reading(client):
    assert await samples(submit(client, steps=470, credit=24000, window=True)) == samples_of(470)


async def test_a_slow_reader_is_measured_as_starved_time(client):
    slow, quick = submit(client, steps=200, credit=24000), submit(client, steps=200)
    await samples(quick)
    await anext(slow)
    await asyncio.sleep(0.2)
    slow.give_credit(UNLIMITED_CREDIT)
    await samples(slow)
    assert slow.starved_seconds >= 0.2
    assert quick.starved_seconds == 0.0


async def test_a_cancelled_row_stops_at_the_next_step_and_its_mate_is_unchanged(tmp_path):
    log = tmp_path / "log"
    async with engine("--step-seconds", "0.005", "--log", str(log)) as client:
        gone, mate = submit(client, steps=200), submit(client, steps=150)
        await until(lambda: len(lines(log, "join")) == 2)
        gone.close()
        assert await samples(mate) == samples_of(150)
        stopped = lines(log, "stopped")
        assert len(stopped) == 1
        assert int(stopped[0].split()[-1]) < 150


async def test_a_deadline_in_the_queue_and_one_while_spoken():
    async with engine("--step-seconds", "0.002", "--rows", "1") as client:
        now = client.clock()
        running = submit(client, steps=300)
        queued = submit(client, deadline=now + 0.1)
        with pytest.raises(DeadlinePassed):
            await samples(queued)
        assert await samples(running) == samples_of(300)
        with pytest.raises(DeadlinePassed):
            await samples(submit(client, steps=2000, deadline=client.clock() + 0.2))
        assert await samples(submit(client, deadline=client.clock() + 5)) == samples_of(SECOND)


async def test_a_poison_row_fails_alone(client):
    poison, invalid = submit(client, "毒"), submit(client, "坏")
    good = [submit(client) for _ in range(4)]
    with pytest.raises(EngineFailure):
        await samples(poison)
    with pytest.raises(InvalidRequest):
        await samples(invalid)
    assert await asyncio.gather(*(samples(row) for row in good)) == [samples_of(SECOND)] * 4


async def test_a_dead_engine_fails_its_rows_and_is_replaced():
    async with engine() as client:
        first = client.pid
        with pytest.raises(NotReady, match="has ended"):
            await samples(submit(client, "亡"))
        with pytest.raises(NotReady):
            submit(client)
        async with asyncio.timeout(10):
            await client.ready.wait()
        assert client.pid != first
        assert await samples(submit(client)) == samples_of(SECOND)


async def test_the_fourth_death_is_the_last(tmp_path):
    codes, log = [], tmp_path / "log"
    async with engine(command=dying(3, log), wait=False, on_fatal=codes.append):
        await until(lambda: bool(codes))
    assert codes == [1]
    assert lines(log) == ["start"] * 4


async def test_an_engine_that_cannot_be_started_is_tried_again(monkeypatch):
    monkeypatch.setattr("chattts_server.engine.client.RESTART_PAUSE_SECONDS", 0.01)
    codes, tries, spawn = [], [], EngineClient._spawn

    async def out_of_memory_once(client, path):
        tries.append(path)
        if len(tries) == 1:
            raise OSError(12, "Cannot allocate memory")
        return await spawn(client, path)

    monkeypatch.setattr(EngineClient, "_spawn", out_of_memory_once)
    async with engine(on_fatal=codes.append) as client:
        assert await samples(submit(client)) == samples_of(SECOND)
    assert (codes, len(tries)) == ([], 2)


@pytest.mark.parametrize(("error", "tries"), [(OSError(24, "Too many open files"), 4), (RuntimeError("a bug"), 1)])
async def test_a_supervisor_that_cannot_go_on_ends_the_process(monkeypatch, error, tries):
    monkeypatch.setattr("chattts_server.engine.client.RESTART_PAUSE_SECONDS", 0.01)
    codes, tried = [], []

    async def broken(client, path):
        tried.append(path)
        raise error

    monkeypatch.setattr(EngineClient, "_spawn", broken)
    async with engine(wait=False, on_fatal=codes.append):
        await until(lambda: bool(codes), 5)
    assert (codes, len(tried)) == ([1], tries)


async def test_exit_78_is_passed_on_at_once(tmp_path):
    codes, log = [], tmp_path / "log"
    async with engine(command=dying(78, log), wait=False, on_fatal=codes.append):
        await until(lambda: bool(codes))
    assert codes == [78]
    assert lines(log) == ["start"]


async def test_an_idle_engine_beats_and_is_left_alone():
    async with engine(watchdog=1.0) as client:
        pid = client.pid
        await asyncio.sleep(1.6)
        assert client.pid == pid
        assert client.heartbeat_age < 1.0


async def test_another_protocol_is_not_talked_to():
    codes = []
    async with engine("--protocol", "99", wait=False, on_fatal=codes.append) as client:
        await until(lambda: bool(codes), 30)
        assert client.hello is None
    assert codes == [1]


async def test_a_voice_is_encoded(client):
    codes = await client.encode_voice(np.zeros(100, "<f4").tobytes())
    assert np.frombuffer(codes, "<u2").tolist() == [100] * 12


async def test_text_is_refined_and_given_up(client):
    limits = Limits(40, 40)
    tokens = await client.refine([1], Sampling(seed=7), limits, None)
    assert tokens == [7 + step for step in range(40)]
    with pytest.raises(DeadlinePassed):
        await client.refine([1], Sampling(seed=7), limits, client.clock() - 1)
    asking = asyncio.create_task(client.refine([1], Sampling(seed=7), Limits(2048, 2048), None))
    await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await client.refine([1], Sampling(seed=8), limits, None) == [8 + step for step in range(40)]


async def test_the_last_words_of_an_engine_are_heard_after_its_end(monkeypatch):
    async def later(*arguments):
        await asyncio.sleep(0.1)  # an event loop with much else to do
        return await read(*arguments)

    async with engine() as client:
        read = wire.read
        monkeypatch.setattr(wire, "read", later)
        row = submit(client, steps=300)  # more than a socket holds: the engine waits for the first reads alone
        client._stopping = True
        client.send(Drain())
        assert await samples(row) == samples_of(300)


async def test_a_bug_in_a_handler_is_logged(caplog):
    def bug(_):
        raise KeyError("a bug")

    reader, writer = asyncio.StreamReader(), Mock()
    reader.feed_data(wire.pack(Phase("load", 1.0)))
    connected = asyncio.Queue()
    connected.put_nowait((reader, writer))
    await EngineClient(dying(1, ""), on_report=bug)._converse(connected)
    assert "KeyError: 'a bug'" in caplog.text


async def test_drain_finishes_what_runs_and_what_waits(tmp_path):
    log = tmp_path / "log"
    async with engine("--step-seconds", "0.002", "--rows", "2", "--log", str(log)) as client:
        rows = [submit(client) for _ in range(5)]
        reading = asyncio.gather(*(samples(row) for row in rows))
        await asyncio.sleep(0.02)
        await client.stop(drain_seconds=10)
        assert await reading == [samples_of(SECOND)] * 5
    assert "drained" in log.read_text()


def socket_of(pid: int) -> Path:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return Path(os.fsdecode(command[command.index(b"--socket") + 1]))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_the_socket_is_for_its_owner_alone(client):
    path = socket_of(client.pid)
    assert [mode(path), mode(path.parent)] == [0o600, 0o700]


async def test_the_engine_ends_when_the_http_process_has_gone():
    """A killed parent closes its end of the socket; here the connection is cut instead."""
    async with engine("--step-seconds", "0.01") as client:
        submit(client, steps=1000)
        await asyncio.sleep(0.1)
        pid = client.pid
        client._stopping = True
        client._writer.transport.abort()
        await until(lambda: not Path(f"/proc/{pid}").exists(), 5)


async def test_a_killed_engine_is_seen_at_once():
    async with engine("--step-seconds", "0.01") as client:
        row = submit(client, steps=1000)
        await asyncio.sleep(0.1)
        os.kill(client.pid, signal.SIGKILL)
        async with asyncio.timeout(1.0):
            with pytest.raises(NotReady):
                await samples(row)
