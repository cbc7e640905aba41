"""The WebSocket: text in pieces, audio while it comes, barge-in, limits, drain, and what a connection leaves behind."""

import asyncio
import json
import signal
import socket
import time
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from chattts_server.api.realtime import Patience
from tests.server.harness import ONE_SECOND, duration, speech, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
SENTENCE = "今天天气很好。"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(serve):
    async with serve() as shared:
        yield shared


class Talk:
    """What a client says, and what it has heard."""

    def __init__(self, socket):
        self.socket = socket
        self.messages = []
        self.audio = {}  # by utterance
        self._utterance = None

    async def say(self, kind, **fields):
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def hear(self, kind=None):
        """The next message (of that kind); audio on the way is kept."""
        while True:
            message = await self.socket.recv()
            if isinstance(message, bytes):
                self.audio[self._utterance] += message
                if kind == "audio":
                    return message
                continue
            message = json.loads(message)
            self.messages.append(message)
            if message["type"] == "utterance.started":
                self._utterance = message["utterance"]
                self.audio[self._utterance] = b""
            if kind in (None, message["type"]):
                return message

    async def closed(self):
        """(close code, reason); what comes before is heard."""
        try:
            while True:
                await self.hear()
        except ConnectionClosed as end:
            return end.rcvd.code, end.rcvd.reason

    def of(self, kind):
        return [message for message in self.messages if message["type"] == kind]


@asynccontextmanager
async def talk(running, start=True, options=None, **settings):
    url = f"ws://127.0.0.1:{running.port}/v1/audio/speech/stream"
    async with asyncio.timeout(30), connect(url, **(options or {})) as socket:
        talking = Talk(socket)
        if start:
            await talking.say("start", **settings)
            assert (await talking.hear())["type"] == "ready"
        yield talking


def is_idle(running):
    return running.server.synthesis.admission.inflight == 0 and not running.server.synthesis.engine._rows


async def test_audio_comes_while_text_still_comes(running):
    async with talk(running, seed=5) as talking:
        for piece in ("今天", "天气", "很好", "。我们"):
            await talking.say("text", text=piece)
        first = await talking.hear("utterance.done")
        assert first["characters"] == 7
        await talking.say("text", text="出去玩")
        await talking.say("end")
        assert await talking.closed() == (1000, "")
    assert [(m["utterance"], m["characters"]) for m in talking.of("utterance.done")] == [(1, 7), (2, 5)]
    assert talking.messages[-1] == {"type": "done", "utterances": 2}
    for number, text in ((1, SENTENCE), (2, "我们出去玩")):
        whole = await speech(running, text, response_format="pcm", seed=5)
        assert talking.audio[number] == whole.content
    done = talking.of("utterance.done")[0]
    assert done["audio_seconds"] == pytest.approx(len(talking.audio[1]) / 48000, abs=0.001)
    assert done["usage"]["output_tokens"] == pytest.approx(done["audio_seconds"] * 46.875, abs=1)


async def test_an_unfinished_sentence_waits_for_flush(running):
    async with talk(running) as talking:
        await talking.say("text", text="没有句号")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await talking.hear()
        await talking.say("flush")
        assert (await talking.hear("utterance.done"))["characters"] == 4


async def test_the_next_utterance_is_made_while_one_is_sent_and_no_more(serve):
    async with serve() as running:
        async with talk(running, max_seconds=8) as talking:
            for _ in range(4):
                await talking.say("text", text="今天天气很好" * 45 + "。")
            await talking.hear("audio")
            await until(lambda: running.server.synthesis.admission.inflight == 2)
            most = 0
            while len(talking.of("utterance.done")) < 3:
                await talking.hear()
                most = max(most, running.server.synthesis.admission.inflight)
        assert most <= 2


@pytest.mark.parametrize("kind", ["mp3", "opus", "aac", "flac", "wav"])
async def test_every_utterance_is_a_file_of_the_chosen_format(running, kind):
    async with talk(running, response_format=kind, sample_rate=16000, max_seconds=1) as talking:
        await talking.say("text", text=SENTENCE)
        await talking.hear("utterance.done")
        await talking.say("text", text=SENTENCE)
        await talking.say("end")
        await talking.closed()
    assert talking.messages[0]["response_format"] == kind
    assert talking.messages[0]["sample_rate"] == 16000
    for data in talking.audio.values():
        assert duration(data, {"aac": "aac", "opus": "ogg"}.get(kind, kind)) == pytest.approx(ONE_SECOND, abs=0.25)


async def test_speed_and_seconds_are_of_what_is_heard(running):
    async with talk(running, speed=2.0, max_seconds=1) as talking:
        await talking.say("text", text=SENTENCE * 3)
        done = await talking.hear("utterance.done")
    assert done["audio_seconds"] == pytest.approx(1.0, abs=0.05)
    assert len(talking.audio[1]) / 48000 == pytest.approx(1.0, abs=0.1)


async def test_cancel_frees_the_rows_at_once_and_the_conversation_goes_on(serve, tmp_path):
    log = tmp_path / "log"
    async with serve("--step-seconds", "0.004", "--log", str(log)) as running:
        async with talk(running, max_seconds=16) as talking:
            await talking.say("text", text=SENTENCE * 40)
            await talking.say("text", text="还没有说完")
            while len(talking.audio.get(1, b"")) < 48_000:  # beyond the first, short row
                await talking.hear("audio")
            await until(lambda: len(running.server.synthesis.engine._rows) >= 2)
            began = time.monotonic()
            await talking.say("cancel")
            cancelled = await talking.hear("cancelled")
            assert time.monotonic() - began < 0.5
            assert cancelled["characters"] >= 5
            assert is_idle(running)
            assert not talking.of("utterance.done")
            await talking.say("text", text="好。")
            assert (await talking.hear("utterance.done"))["characters"] == 2
            assert "stopped after" in log.read_text()
        await until(lambda: is_idle(running))
        served = 'chattts_infer_long_duration_seconds_count{delivery="stream"} 1.0'  # 16 s; what was cancelled is none
        assert served in await running.metrics()


async def test_cancels_that_come_together_are_each_answered(running):
    async with talk(running) as talking:
        await talking.say("text", text=SENTENCE * 40)
        for _ in range(3):
            await talking.say("cancel")
        await talking.say("end")
        assert await talking.closed() == (1000, "")
    assert len(talking.of("cancelled")) == 3
    assert is_idle(running)


async def test_a_client_that_leaves_frees_its_rows(running):
    async with talk(running) as talking:
        await talking.say("text", text=SENTENCE * 60)
        await talking.hear("audio")
        assert not is_idle(running)
        talking.socket.transport.abort()
    await until(lambda: is_idle(running))
    await until(lambda: not running.server.server_state.tasks)


async def test_a_failed_utterance_is_told_and_is_never_a_short_success(serve):
    async with serve() as running:
        async with talk(running) as talking:
            await talking.say("text", text="毒。")
            failed = await talking.hear("utterance.failed")
            assert (failed["utterance"], failed["error"]["code"]) == (1, "engine_failed")
            await talking.say("text", text=SENTENCE * 20 + "亡。")
            broken = await talking.hear("utterance.failed")
            assert broken["error"]["code"] == "engine_lost"
            assert len(talking.audio[broken["utterance"]]) > 0, "after its first audio"
            assert broken["error"]["request_id"] == talking.messages[0]["request_id"]
            async with asyncio.timeout(10):
                await running.server.synthesis.engine.ready.wait()
            await talking.say("text", text=SENTENCE)
            await talking.say("end")
            assert await talking.closed() == (1000, "")
        assert talking.messages[-2]["type"] == "utterance.done"
        assert is_idle(running)


async def test_admission_is_asked_for_every_utterance(serve):
    """One row, 10 ms a step: 3 s of somebody else's audio fill a queue of 1 s."""
    flags = ("--step-seconds", "0.01", "--rows", "1", "--throughput", "2")
    async with serve(*flags, max_queue_wait_milliseconds="1000") as running, talk(running, max_seconds=0.5) as talking:
        await talking.say("text", text=SENTENCE)
        await talking.hear("utterance.done")
        other = asyncio.create_task(speech(running, max_seconds=3))
        await until(lambda: running.server.synthesis.admission.inflight == 1)
        await talking.say("text", text=SENTENCE)
        refused = await talking.hear("utterance.failed")
        assert (refused["error"]["code"], refused["error"]["type"]) == ("queue_full", "rate_limit_error")
        assert refused["retry_after"] >= 1
        assert (await other).status_code == 200
        await talking.say("text", text=SENTENCE)
        await talking.hear("utterance.done")


# (message, code, param)
WRONG = [
    ("{", "malformed_json", None),
    ("[]", "invalid_value", None),
    ('{"type":"sing"}', "invalid_message", "type"),
    ('{"text":"好"}', "invalid_message", "type"),
    ('{"type":"text"}', "invalid_value", "text"),
    ('{"type":"text","text":""}', "invalid_value", "text"),
    ('{"type":"text","text":"好","volume":3}', "invalid_value", "volume"),
    ('{"type":"start"}', "already_started", None),
    (b"\0\1", "invalid_message", None),
]


async def test_bad_messages_are_typed_errors_and_change_nothing(running, subtests):
    async with talk(running) as talking:
        for message, code, param in WRONG:
            with subtests.test(message=message):
                await talking.socket.send(message)
                error = (await talking.hear("error"))["error"]
                assert (error["code"], error["type"]) == (code, "invalid_request_error")
                assert (error["param"] or "").endswith(param or "")
        await talking.say("text", text="好" * 9000)
        await talking.say("text", text="好" * 9000)
        assert (await talking.hear("error"))["error"]["code"] == "text_buffer_full"
        await talking.say("cancel")
        assert (await talking.hear("cancelled"))["characters"] <= 9000
        await talking.say("text", text=SENTENCE)
        await talking.say("end")
        await talking.say("text", text=SENTENCE)
        assert (await talking.hear("error"))["error"]["code"] == "already_ended"
        assert await talking.closed() == (1000, "")
    assert len(talking.of("utterance.done")) >= 1


async def test_an_unreadable_utterance_is_told(running):
    async with talk(running) as talking:
        await talking.say("text", text="😀。")
        assert (await talking.hear("utterance.failed"))["error"]["code"] == "unreadable_text"


@pytest.mark.parametrize(
    ("first", "code"),
    [({"type": "text", "text": "好"}, "not_started"), ({"type": "start", "speed": 9}, "invalid_value"),
     ({"type": "start", "spede": 1}, "invalid_value")],
)  # fmt: skip
async def test_without_a_good_start_nothing_is_spoken(running, first, code):
    async with talk(running, start=False) as talking:
        await talking.socket.send(json.dumps(first))
        assert (await talking.hear())["error"]["code"] == code
        assert (await talking.closed())[0] == 1008


async def test_a_message_that_is_too_large_closes_the_connection(running):
    async with talk(running) as talking:
        await talking.say("text", text="x" * 70_000)
        assert (await talking.closed())[0] == 1009
    await until(lambda: not running.server.server_state.tasks)


async def test_ping_is_answered_and_a_dead_peer_is_noticed(serve, monkeypatch):
    monkeypatch.setattr("chattts_server.serve.PING_SECONDS", 0.2)
    async with serve() as running:
        async with talk(running) as talking:
            await (await talking.socket.ping())
            await asyncio.sleep(0.8)
            await talking.say("text", text=SENTENCE)
            await talking.hear("utterance.done")  # it has answered ours all the time
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(
            b"GET /v1/audio/speech/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        began = time.monotonic()
        async with asyncio.timeout(5):
            assert b"101" in await reader.readline()
            await reader.read()  # it says nothing, and so the connection is ended
        assert 0.3 < time.monotonic() - began < 3
        writer.close()
        await until(lambda: not running.server.server_state.tasks)


async def test_silence_on_both_sides_ends_the_conversation(serve):
    async with serve("--step-seconds", "0.01") as running:
        running.server.config.app.state.patience = Patience(start=0.3, idle=0.5)
        async with talk(running, start=False) as talking:
            assert (await talking.closed())[0] == 4408
        async with talk(running, max_seconds=2) as talking:
            await talking.say("text", text=SENTENCE)
            done = await talking.hear("utterance.done")  # takes longer than that: who listens is not idle
            assert done["audio_seconds"] > 1.5
            began = time.monotonic()
            assert (await talking.closed())[0] == 4408
            assert time.monotonic() - began > 0.4


async def test_a_reader_that_stands_still_holds_little_and_not_for_long(serve, monkeypatch):
    monkeypatch.setattr("chattts_server.api.audio_response.STALL_SECONDS", 0.5)
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    async with serve() as running:
        small.connect(("127.0.0.1", running.port))
        async with talk(running, options={"sock": small, "max_queue": 1}) as talking:
            await talking.say("text", text=SENTENCE * 100)
            await talking.hear("audio")
            mate = await speech(running, response_format="wav", max_seconds=1)
            assert mate.status_code == 200
            await until(lambda: is_idle(running), 8)
            await until(lambda: not running.server.server_state.tasks, 3)


async def test_a_slow_reader_that_goes_on_hears_all(running):
    async with talk(running, seed=5, options={"max_queue": 1}) as talking:
        await talking.say("text", text=SENTENCE * 6)
        await talking.say("end")
        while not talking.of("utterance.done"):
            await talking.hear("audio" if len(talking.audio.get(1, b"")) < 100_000 else None)
            await asyncio.sleep(0.02)
        assert await talking.closed() == (1000, "")
    assert talking.audio[1] == (await speech(running, SENTENCE * 6, response_format="pcm", seed=5)).content


async def test_a_drain_ends_after_the_current_utterance(serve):
    async with serve("--step-seconds", "0.01") as running:
        async with talk(running) as idle, talk(running, max_seconds=1.5) as talking:
            await talking.say("text", text=SENTENCE)
            await talking.hear("audio")
            await talking.say("text", text=SENTENCE)
            await talking.say("text", text="还没")
            began = time.monotonic()
            running.server._on_signal(signal.SIGTERM)
            assert (await idle.closed())[0] == 1012
            assert time.monotonic() - began < 0.3
            assert (await talking.closed())[0] == 1012
            assert len(talking.of("utterance.done")) == 1
            assert len(talking.audio[1]) / 48000 == pytest.approx(1.5, abs=0.05)
        with pytest.raises(InvalidStatus) as refused:
            async with talk(running, start=False):
                pass
        response = refused.value.response
        assert (response.status_code, json.loads(response.body)["error"]["code"]) == (503, "draining")
        await until(lambda: running.server.should_exit)


async def test_without_an_engine_the_handshake_is_refused(serve):
    async with serve(wait_ready=False) as running:
        with pytest.raises(InvalidStatus) as refused:
            async with talk(running, start=False):
                pass
        response = refused.value.response
        assert response.status_code == 503
        assert response.headers["retry-after"] == "2"
        assert json.loads(response.body)["error"]["request_id"] == response.headers["x-request-id"]
