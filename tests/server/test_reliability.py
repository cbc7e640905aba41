"""Rows R8 to R12 of the reliability table. Beside what must not happen stands the same run without the fault.

First the loop alone, over a model that hums; then a server and its engine process; then the real model.
"""

import asyncio
import itertools
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from chattts_server.engine.client import EngineClient, EngineCommand
from chattts_server.engine.nouns import (
    UNLIMITED_CREDIT,
    Fail,
    Finish,
    Limits,
    Sampling,
    Submit,
    Voice,
    samples_of,
)
from chattts_server.engine.scheduler import retry_seed
from chattts_server.errors import NotReady
from tests.server.fake_engine import EMPTY, NAN, HummingModel
from tests.server.harness import code_of, speech, until
from tests.server.test_api import parsed
from tests.server.test_engine_loop import STEPS, run, submit, whole

on_the_server = pytest.mark.asyncio(loop_scope="module")
OUT_OF_MEMORY = "CUDA out of memory"


def kinds(port):
    return {row: fail.kind for row, fail in port.of(Fail).items()}


def unchanged(port, undisturbed, rows):
    """Whether these rows have the same samples, to the bit."""
    sound, expected = port.sound(), undisturbed.sound()
    return [np.array_equal(sound[row], expected[row]) for row in rows]


# R8: the first token is the end token


@pytest.mark.parametrize("times", [1, 2, 3])
def test_r08_a_row_that_ends_at_once_is_tried_again_alone(times):
    undisturbed = run({1: [submit(0), submit(1), submit(2)]})
    script = {1: [submit(0), submit(1, tokens=[1, *[EMPTY] * times]), submit(2)]}
    port = run(script)
    assert {row: finish.retries for row, finish in port.of(Finish).items()} == {0: 0, 1: times, 2: 0}
    assert whole(port) == dict.fromkeys(range(3), samples_of(STEPS))
    assert unchanged(port, undisturbed, (0, 1, 2)) == [True, False, True]  # other noise for the retry alone
    assert unchanged(run(script), port, range(3)) == [True] * 3  # and the same whenever it is asked for


def test_r08_the_fourth_empty_try_is_the_last_and_fails_alone():
    undisturbed = run({1: [submit(0), submit(1), submit(2)]})
    lines = []
    port = run({1: [submit(0), submit(1, tokens=[EMPTY] * 4), submit(2)]}, HummingModel(4, 0.0, lines.append))
    assert kinds(port) == {1: "empty"}
    assert lines.count("retry 1") == 3
    assert 1 not in port.sound()
    assert unchanged(port, undisturbed, (0, 2)) == [True, True]


def test_r08_retries_of_neighbouring_seeds_share_no_noise():
    seeds = {retry_seed(seed, retry) for seed in (*range(1000), *range(2**63 - 1000, 2**63)) for retry in range(4)}
    assert len(seeds) == 8000
    assert 0 <= min(seeds) <= max(seeds) < 2**63


# R9: out of memory


class Starved(HummingModel):
    """`call` finds no memory whenever `lacks(slots of the call, number of the call)` says so."""

    def __init__(self, call, lacks):
        super().__init__(4, 0.0, lambda _: None)
        self.failures = 0
        act, number = getattr(self, call), itertools.count(1)

        def starved(first, *rest):
            own = [first] if isinstance(first, int) else [getattr(one, "slot", one) for one in first]
            if lacks(own, next(number)):
                self.failures += 1
                raise RuntimeError(OUT_OF_MEMORY)
            return act(first, *rest)

        setattr(self, call, starved)


ROWS = {1: [submit(number, 200) for number in range(4)]}  # in the slots of their numbers; vocoded twice each
CALLS = ("join", "prefill", "step", "vocode")


@pytest.fixture(scope="module")
def undisturbed():
    return run(ROWS)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("number", [1, 2])
def test_r09_a_call_without_memory_is_tried_again_and_nobody_is_lost(undisturbed, call, number):
    model = Starved(call, lambda _, calls: calls == number)
    port = run(ROWS, model)
    assert model.failures == 1
    assert not port.of(Fail)
    assert unchanged(port, undisturbed, range(4)) == [True] * 4


@pytest.mark.parametrize(("call", "failures"), [("join", 2), ("prefill", 2), ("step", 4), ("vocode", 3)])
def test_r09_a_row_that_never_has_memory_is_the_only_one_lost_and_not_tried_for_ever(undisturbed, call, failures):
    model = Starved(call, lambda slots, _: 2 in slots)
    port = run(ROWS, model)
    assert kinds(port) == {2: "engine"}
    assert model.failures == failures
    assert unchanged(port, undisturbed, (0, 1, 3)) == [True] * 3


@pytest.mark.parametrize(("call", "most"), [("step", 3 * 202), ("vocode", 4)])
def test_r09_with_memory_for_one_row_at_a_time_all_are_spoken(undisturbed, call, most):
    model = Starved(call, lambda slots, _: len(slots) > 1)
    port = run(ROWS, model)
    assert not port.of(Fail)
    assert most / 2 < model.failures <= most
    assert unchanged(port, undisturbed, range(4)) == [True] * 4


def test_r09_a_lost_row_leaves_its_slot_to_others():
    """As many rows as there are slots fail one after another; then just as many are spoken."""
    model = Starved("join", lambda _, calls: calls <= 8)
    port = run({1: [submit(number) for number in range(8)]}, model)
    assert kinds(port) == dict.fromkeys(range(4), "engine")
    assert whole(port) == dict.fromkeys(range(4, 8), samples_of(STEPS))


# R12: values that are not finite


def test_r12_a_row_that_is_not_finite_fails_alone_and_is_not_heard(undisturbed):
    port = run({1: [submit(number, 200, tokens=[NAN] if number == 2 else [1]) for number in range(4)]})
    assert kinds(port) == {2: "nan"}
    assert 2 not in port.sound()
    assert unchanged(port, undisturbed, (0, 1, 3)) == [True] * 3
    assert not any(np.isnan(samples).any() for samples in port.sound().values())


def test_r12_a_sound_that_is_not_finite_fails_alone_and_is_not_heard(undisturbed):
    class Broken(HummingModel):
        def vocode(self, pieces):
            if any(piece.slot == 2 and piece.end_step > 150 for piece in pieces):
                raise FloatingPointError("the vocoder made values that are not finite")
            return super().vocode(pieces)

    port = run(ROWS, Broken(4, 0.0, lambda _: None))
    assert kinds(port) == {2: "nan"}
    assert port.sound()[2].size == samples_of(128)  # what was made before
    assert unchanged(port, undisturbed, (0, 1, 3)) == [True] * 3


# A server in this process, its engine in another


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(serve):
    """Four rows of 3 ms a step."""
    async with serve("--step-seconds", "0.003", "--rows", "4") as shared:
        yield shared


async def failed_rows(running):
    values = parsed(await running.metrics())
    return {reason: values["chattts_rows_failed_total", reason] for reason in ("invalid", "engine", "nan", "empty")}


MATE = {"seed": 5, "max_seconds": 0.7, "response_format": "wav"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alone(running):
    return await speech(running, **MATE)


async def beside_mate(running, text, alone):
    """(answer to `text`, whether a mate's bytes are those it has alone, new failures by reason, same engine)"""
    pid, before = running.server.synthesis.engine.pid, await failed_rows(running)
    answer, mate = await asyncio.gather(speech(running, text, max_seconds=0.7), speech(running, **MATE))
    assert alone.status_code == mate.status_code == 200
    after = await failed_rows(running)
    failed = {reason: after[reason] - before[reason] for reason in after if after[reason] != before[reason]}
    return answer, alone.content == mate.content, failed, running.server.synthesis.engine.pid == pid


@pytest.mark.parametrize(
    ("text", "status", "code", "failed"),
    [
        ("空好", 200, None, {}),
        ("空空空空好", 500, "no_audio", {"empty": 1}),
        ("满好", 200, None, {}),
        ("毒好", 500, "engine_failed", {"engine": 1}),
        ("乱好", 500, "engine_failed", {"nan": 1}),
    ],
    ids=["r08_empty_once", "r08_empty_always", "r09_memory_for_one", "r09_never_memory", "r12_nan"],
)
@on_the_server
async def test_r08_r09_r12_one_request_fails_or_none_its_mate_and_the_engine_do_not(
    running, alone, text, status, code, failed
):
    answer, mate_is_unchanged, new, same_engine = await beside_mate(running, text, alone)
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, None)
    assert code is None or code_of(answer) == code
    assert (mate_is_unchanged, new, same_engine) == (True, failed, True)


async def refused_until_ready(running, old_pid):
    """Statuses of requests that come one after another, up to the first that another engine has spoken."""
    statuses = []
    async with asyncio.timeout(15):
        while not statuses or statuses[-1] != 200:
            statuses.append((await speech(running, max_seconds=0.1)).status_code)
            await asyncio.sleep(0.01)
    assert running.server.synthesis.engine.pid != old_pid
    assert (await running.client.get("/readyz")).status_code == 200
    return statuses


@on_the_server
async def test_r10_a_lost_device_ends_the_engine_at_once_and_another_one_is_started(running):
    engine = running.server.synthesis.engine
    pid = engine.pid
    # Wanted whole: a stream would be broken, which is another test.
    running_rows = [asyncio.create_task(speech(running, max_seconds=20, response_format="wav")) for _ in range(3)]
    last_good = asyncio.create_task(speech(running, max_seconds=1))
    await until(lambda: len(engine._rows) == 4)
    waiting = [asyncio.create_task(speech(running, text, max_seconds=20)) for text in ("失", "好", "好")]
    assert (await last_good).status_code == 200  # its slot goes to the row that finds the device lost
    ended = time.monotonic()
    await until(lambda: not Path(f"/proc/{pid}").exists(), 1.0)
    answers = await asyncio.gather(*running_rows, *waiting)
    assert time.monotonic() - ended < 1.0
    assert [(answer.status_code, code_of(answer)) for answer in answers] == [(503, "engine_lost")] * 6
    assert {answer.headers["retry-after"] for answer in answers} == {"2"}
    assert (await running.client.get("/readyz")).status_code == 503
    statuses = await refused_until_ready(running, pid)
    assert set(statuses[:-1]) <= {503}


@on_the_server
async def test_r11_a_hung_step_is_ended_by_the_watchdog_with_its_stack_in_the_log(serve, capfd):
    async with serve("--step-seconds", "0.005", "--rows", "2", watchdog=1.0) as running:
        engine = running.server.synthesis.engine
        pid, began = engine.pid, time.monotonic()
        rows = [asyncio.create_task(speech(running, max_seconds=20, response_format="wav"))]
        await until(lambda: len(engine._rows) == 1)
        rows += [asyncio.create_task(speech(running, text, max_seconds=20)) for text in ("停", "好", "好")]
        answers = await asyncio.gather(*rows)
        assert 1.0 < time.monotonic() - began < 4.0
        assert [(answer.status_code, code_of(answer)) for answer in answers] == [(503, "engine_lost")] * 4
        await until(lambda: not Path(f"/proc/{pid}").exists(), 1.0)
        assert set((await refused_until_ready(running, pid))[:-1]) <= {503}
    assert "in step" in (dump := capfd.readouterr().err)
    assert "Fatal Python error: Aborted" in dump


@pytest.mark.parametrize(("device", "seconds"), [("auto", 10.0), ("cuda", 10.0), ("cpu", 60.0)])
def test_r11_the_watchdog_of_a_device_waits_ten_seconds_at_most(device, seconds):
    assert EngineCommand.of(Path("/model"), device, "auto", None, "json").watchdog_seconds == seconds


# The real model


@pytest.fixture(scope="module")
def slots(tiny):
    from tests.server.test_slots import slots_of

    return slots_of(tiny)


@pytest.fixture(scope="module")
def spoken(slots, prompt):
    """Four rows that join together, and one that comes into a slot that another has left."""

    def made(lengths, bad_voice=b""):
        voices = [Voice(bad_voice if number == 2 else b"") for number in range(5)]
        rows = [
            Submit(number, prompt("今天天气很好"), voice, Sampling(seed=number), Limits(steps), None, UNLIMITED_CREDIT)
            for number, (voice, steps) in enumerate(zip(voices, lengths, strict=True))
        ]
        return run({1: rows}, slots)

    return made


@pytest.fixture(scope="module")
def spoken_undisturbed(spoken):
    return spoken(TWO_PIECES)


def breaking(monkeypatch, owner, name, number, error):
    """The call of that number raises after its work is done: what it wrote stays written."""
    act, calls = getattr(owner, name), itertools.count(1)

    def broken(*args, **kwargs):
        result = act(*args, **kwargs)
        if next(calls) == number:
            raise error
        return result

    monkeypatch.setattr(owner, name, broken)


TWO_PIECES = [136] * 5
ALONE = [60, 70, 80, 90, 60]  # vocoded alone: the vocoder's last bits are those of its company, 1e-7 apart


@pytest.mark.engine
@pytest.mark.parametrize("call", CALLS)
def test_r09_rows_of_the_real_model_are_the_same_after_a_call_without_memory(
    slots, spoken, spoken_undisturbed, monkeypatch, call
):
    import torch

    owner, name = {
        "join": (slots.gpt, "embed_text"),
        "prefill": (slots.gpt, "prefill"),
        "step": (slots.gpt, "decode"),
        "vocode": (slots._vocoder, "push"),
    }[call]
    with monkeypatch.context() as patch:
        breaking(patch, owner, name, 2, torch.OutOfMemoryError(OUT_OF_MEMORY))
        port = spoken(TWO_PIECES)
    assert not port.of(Fail)
    if call == "vocode":  # two rows together before, each alone after
        sound, expected = port.sound(), spoken_undisturbed.sound()
        assert max(np.abs(sound[row] - expected[row]).max() for row in range(5)) < 1e-6
    else:
        assert unchanged(port, spoken_undisturbed, range(5)) == [True] * 5


@pytest.mark.engine
@pytest.mark.parametrize("where", ["prompt", "step"])
def test_r12_a_row_of_the_real_model_that_is_not_finite_leaves_nothing_in_its_slot(slots, spoken, monkeypatch, where):
    """Row 2 fails; row 4 takes its slot, whose keys and values were not finite."""
    undisturbed = spoken(ALONE)
    assert not undisturbed.of(Fail)
    monkeypatch.setattr(slots, "problem", lambda _: None)  # which refuses such a voice
    decode, steps = slots.gpt.decode, itertools.count()

    def spoiled(inputs, own, positions):
        if where == "step" and next(steps) == 20:
            inputs[2] = np.nan
        return decode(inputs, own, positions)

    monkeypatch.setattr(slots.gpt, "decode", spoiled)
    bad_voice = np.full(slots.width, np.nan, "<f4").tobytes() if where == "prompt" else b""
    port = spoken(ALONE, bad_voice)
    assert kinds(port) == {2: "nan"}
    assert 2 not in port.sound()
    assert unchanged(port, undisturbed, (0, 1, 3, 4)) == [True] * 4
    assert all(np.isfinite(samples).all() for samples in port.sound().values())


LOSES_ITS_DEVICE_ONCE = """
import pathlib, sys
from chattts_server.engine import process
from chattts_server.engine.speech_model import DeviceLost
run, marker = process.Engine.run, pathlib.Path(sys.argv.pop(1))

def lost(*_):
    raise DeviceLost("unspecified launch failure")

def with_a_fault(engine):
    if not marker.exists():
        marker.touch()
        engine._model.launch = lost
    run(engine)

process.Engine.run = with_a_fault
sys.exit(process.main())
"""


@pytest.mark.engine
@on_the_server
async def test_r10_a_real_engine_without_its_device_ends_at_once_and_comes_back(tiny, prompt, tmp_path):
    flags = ["--model", str(tiny), "--device", "cpu", "--dtype", "auto", "--rows", "4"]
    command = EngineCommand([sys.executable, "-c", LOSES_ITS_DEVICE_ONCE, str(tmp_path / "lost"), *flags], 60.0)
    client = EngineClient(command)
    await client.start()
    try:
        for alive in (False, True):
            async with asyncio.timeout(120):
                await client.ready.wait()
            pid, began = client.pid, time.monotonic()
            row = client.submit(prompt("好"), Voice(), Sampling(), Limits(47), None, UNLIMITED_CREDIT)
            if alive:
                assert sum([len(pcm) // 4 async for pcm in row]) == samples_of(47)
            else:
                with pytest.raises(NotReady):
                    await anext(row)
                await until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 1.0)
                assert time.monotonic() - began < 1.0
    finally:
        await client.stop()
