"""Row R3: a deadline passes in the queue, in prefill, between decode steps and in the vocoder.

Beside each stands the same run with a later deadline. First the loop alone in virtual time, then over HTTP.
"""

import asyncio

import pytest

from chattts_server.engine.nouns import Fail, Finish, samples_of
from chattts_server.engine.process import Engine
from tests.server.fake_engine import HummingModel
from tests.server.harness import code_of, speech
from tests.server.test_api import parsed
from tests.server.test_engine_loop import Port, submit, whole


class Clocked(HummingModel):
    """Each call takes as long as the test says; `steps`: (time, slots) of each step."""

    def __init__(self, **seconds):
        super().__init__(2, 0.0, lambda _: None)
        self.now, self.seconds, self.stepped = 0.0, seconds, []

    def _take(self, call):
        self.now += self.seconds.get(call, 0.01)

    def join(self, slot, row, seed):
        super().join(slot, row, seed)
        return 10

    def prefill(self, slot):
        self._take("prefill")

    def step(self, slots):
        self._take("step")
        self.stepped.append((self.now, tuple(slots)))
        return super().step(slots)

    def vocode(self, pieces):
        self._take("vocode")
        return super().vocode(pieces)


def spoken(deadline, rows=1, **seconds):
    """(port, model) after `rows` rows of 60 steps; only the last one has the deadline."""
    model = Clocked(**seconds)
    port = Port({1: [submit(number, deadline=deadline if number == rows - 1 else None) for number in range(rows)]})
    Engine(port, model, clock=lambda: model.now).run()
    return port, model


CASES = {
    "queue": {"rows": 3},  # two slots, so it waits for 0.8 s
    "prefill": {"prefill": 0.3},
    "decode": {"step": 0.02},
    "vocode": {"step": 0.001, "vocode": 2.0},
}


@pytest.mark.parametrize("phase", CASES)
def test_r03_a_deadline_passes_in_each_phase_and_says_so(phase):
    case = CASES[phase]
    last = case.get("rows", 1) - 1
    port, _ = spoken(0.5, **case)
    assert {row: (fail.kind, fail.phase) for row, fail in port.of(Fail).items()} == {last: ("deadline", phase)}
    assert whole(port) == dict.fromkeys(range(last), samples_of(60))
    port, _ = spoken(50.0, **case)
    assert not port.of(Fail)
    assert whole(port)[last] == samples_of(60)


def test_r03_the_slot_is_free_within_two_steps_and_serves_the_next():
    model = Clocked(step=0.02)
    rows = [submit(0, 200), submit(1, 200, deadline=0.5), submit(2, 20)]
    port = Port({1: rows})
    Engine(port, model, clock=lambda: model.now).run()
    assert set(port.of(Fail)) == {1}
    late = [slots for time, slots in model.stepped if time > 0.5]
    assert len(late[0]) <= 2
    assert late[1:3] != late[:2] or late[0] == (0,), "row 1 is not stepped more than once after its deadline"
    assert port.of(Finish).keys() == {0, 2}
    joined = port.of(Finish)[2].queued_seconds
    assert joined <= 0.5 + 2 * 0.02 + 0.01


def test_the_times_of_a_row_are_told_by_phase():
    port, _ = spoken(None, prefill=0.1, step=0.02, vocode=0.5)
    finish = port.of(Finish)[0]
    assert finish.queued_seconds == 0.0
    assert finish.prefill_seconds == pytest.approx(1.0)
    assert finish.decode_seconds == pytest.approx(60 * 0.02)
    assert finish.vocode_seconds == pytest.approx(0.5)


async def late(running):
    values = parsed(await running.metrics())
    phases = ("queue", "prefill", "decode", "vocode", "engine")
    return {phase: n for phase in phases if (n := values["chattts_deadlines_passed_total", phase])}


async def test_r03_over_http_it_is_504_counted_by_phase_and_the_next_request_is_spoken(serve):
    """One row at a time, 5 ms a step. The places behind it are four, so some requests wait before the engine."""
    async with serve("--step-seconds", "0.005", "--rows", "1") as running:
        tooslow = await speech(running, response_format="wav", max_seconds=10, deadline_ms=300)
        assert (tooslow.status_code, code_of(tooslow)) == (504, "deadline_exceeded")
        assert await late(running) == {"decode": 1}
        holding = asyncio.create_task(speech(running, max_seconds=4))
        await asyncio.sleep(0.05)
        crowd = await asyncio.gather(*(speech(running, max_seconds=0.1 + n / 100, deadline_ms=300) for n in range(6)))
        assert {answer.status_code for answer in crowd} == {504}
        assert await late(running) == {"decode": 1, "queue": 6}
        assert (await holding).status_code == 200
        assert (await speech(running, max_seconds=0.2, deadline_ms=3000)).status_code == 200
        assert running.server.synthesis.queue._inside == 0


async def test_what_cannot_be_made_whole_in_time_is_400_at_once_and_names_the_stream(serve):
    """10 audio seconds a second are predicted: 30 s of audio take 3 s."""
    async with serve("--throughput", "10") as running:
        asked = {"max_seconds": 30, "deadline_ms": 2000}
        never = await speech(running, response_format="wav", **asked)
        assert (never.status_code, code_of(never)) == (400, "too_long_for_deadline")
        assert "stream_format" in never.json()["error"]["message"]
        assert "retry-after" not in never.headers
        short = await running.client.post("/tts", json={"text": "好", **asked})
        assert (short.status_code, code_of(short)) == (400, "too_long_for_deadline")
        streamed = await speech(running, response_format="pcm", stream_format="audio", **asked)
        assert (streamed.status_code, len(streamed.content)) == (200, 2 * samples_of(1407))
        assert (await speech(running, response_format="wav", max_seconds=30, deadline_ms=9000)).status_code == 200
        values = parsed(await running.metrics())
        assert (values["chattts_infer_total", "invalid"], values["chattts_infer_total", "refused"]) == (2, 0)


async def test_what_would_fill_the_memory_is_400_and_names_the_stream(serve):
    async with serve(max_whole_audio_seconds="20") as running:
        for fields in ({"max_seconds": 21}, {"max_seconds": 21, "speed": 2.0}, {"max_seconds": 21, "speed": 0.5}):
            refused = await speech(running, response_format="wav", **fields)
            assert (refused.status_code, code_of(refused)) == (400, "too_long_for_whole")
            assert "stream_format" in refused.json()["error"]["message"]
        short = await running.client.post("/tts", json={"text": "好", "max_seconds": 21})
        assert (short.status_code, code_of(short)) == (400, "too_long_for_whole")
        for fields in ({"max_seconds": 19}, {"max_seconds": 19, "speed": 0.5}):
            assert (await speech(running, response_format="wav", **fields)).status_code == 200
        streamed = await speech(running, response_format="wav", stream_format="audio", max_seconds=21)
        assert (streamed.status_code, streamed.headers["content-type"]) == (200, "audio/wav")
        values = parsed(await running.metrics())
        assert (values["chattts_infer_total", "invalid"], values["chattts_infer_total", "accepted"]) == (4, 3)


async def test_a_budget_is_429_and_no_load_for_the_autoscaler(serve):
    async with serve(key_audio_seconds_per_minute="20") as running:
        assert (await speech(running, max_seconds=19)).status_code == 200
        poor = await speech(running, max_seconds=10)
        assert (poor.status_code, code_of(poor)) == (429, "over_budget")
        assert 20 <= int(poor.headers["retry-after"]) <= 30
        assert (await speech(running, max_seconds=0.5)).status_code == 200
        values = parsed(await running.metrics())
        assert values["chattts_infer_total", "refused"] == 0
        assert values["chattts_requests_rejected_total", "budget"] == 1


@pytest.mark.parametrize(("step", "underruns"), [("0.05", 1), ("0.001", 0)])
async def test_a_stream_slower_than_its_player_is_counted(serve, step, underruns):
    """A step is 21 ms of sound: one of 50 ms is too slow."""
    async with serve("--step-seconds", step) as running:
        answer = await speech(running, response_format="pcm", stream_format="audio", max_seconds=1.5)
        assert answer.status_code == 200
        assert parsed(await running.metrics())["chattts_stream_underruns_total",] == underruns
