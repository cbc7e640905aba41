"""The HTTP side over real sockets; the engine is a process that hums."""

import asyncio
import signal
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.server.harness import ONE_SECOND, code_of, duration, speech, until


def parsed(text):
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_full_is_429_with_retry_after_and_still_ready(serve):
    """One row at a time, 0.25 s each; predicted are 2 audio seconds a second, so 2 s of audio fill the limit of 1 s."""
    flags = ("--step-seconds", "0.005", "--rows", "1", "--throughput", "2")
    async with serve(*flags, max_queue_wait_milliseconds="1000") as running:
        answers = await asyncio.gather(*(speech(running, response_format="wav", max_seconds=1) for _ in range(6)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert sorted({answer.status_code for answer in answers}) == [200, 429]
        for answer in refused:
            assert code_of(answer) == "queue_full"
            assert int(answer.headers["retry-after"]) >= 1
        assert (await running.client.get("/readyz")).status_code == 200
        values = parsed(await running.metrics())
        assert values["chattts_infer_total", "refused"] == len(refused)
        assert values["chattts_infer_total", "accepted"] == 6 - len(refused)
        assert values["chattts_infer_duration_seconds_count", "full"] == 6 - len(refused)
        assert values["chattts_inflight_requests",] == 0
        assert values["chattts_queued_audio_seconds",] == pytest.approx(0)
        assert (await speech(running, max_seconds=1)).status_code == 200


async def test_a_deadline_is_504_and_counted_as_late(serve):
    async with serve("--step-seconds", "0.01") as running:
        late = await speech(running, max_seconds=20, deadline_ms=300)
        assert (late.status_code, code_of(late)) == (504, "deadline_exceeded")
        assert (await speech(running, max_seconds=0.2, deadline_ms=3000)).status_code == 200
        values = parsed(await running.metrics())
        assert values["chattts_infer_total", "accepted"] == 2
        assert values["chattts_infer_duration_seconds_bucket", "1.2", "full"] == 1
        assert values["chattts_infer_long_duration_seconds_count", "full"] == 1  # 20 s of audio were asked


async def test_a_client_that_leaves_frees_its_row(serve):
    async with serve("--step-seconds", "0.01") as running:
        with pytest.raises(httpx.ReadTimeout):
            await running.client.post("/tts", json={"text": "好", "max_seconds": 30}, timeout=0.5)
        await until(lambda: running.server.synthesis.admission.inflight == 0)
        await asyncio.sleep(0.5)
        made = parsed(await running.metrics())["chattts_audio_seconds_total",]
        await asyncio.sleep(0.5)
        values = parsed(await running.metrics())
        assert 0 < values["chattts_audio_seconds_total",] == made < 5, "of 30 s; and it is not going on"
        assert values["chattts_infer_duration_seconds_count", "full"] == 0


async def test_a_stream_that_is_left_is_cancelled(serve):
    async with serve() as running:
        body = {"input": "今天天气很好。" * 60, "response_format": "pcm", "stream_format": "audio"}
        async with running.client.stream("POST", "/v1/audio/speech", json=body) as response:
            await anext(response.aiter_bytes())
            assert running.server.synthesis.admission.inflight == 1
        await until(lambda: running.server.synthesis.admission.inflight == 0)


async def test_a_failure_after_the_first_byte_breaks_the_body(serve):
    async with serve() as running:
        text = "今天天气很好。" * 20
        body = {"input": text + "亡。", "response_format": "pcm", "stream_format": "audio"}
        with pytest.raises(httpx.RemoteProtocolError):  # never a short success
            await running.client.post("/v1/audio/speech", json=body)
        body["input"] = text
        async with asyncio.timeout(10):
            await running.server.synthesis.engine.ready.wait()
        assert (await running.client.post("/v1/audio/speech", json=body)).status_code == 200


async def test_a_failure_before_the_first_byte_is_typed(serve):
    async with serve() as running:
        failed = await speech(running, "毒")
        assert (failed.status_code, code_of(failed)) == (500, "engine_failed")
        invalid = await speech(running, "坏")
        assert (invalid.status_code, code_of(invalid)) == (422, "unspeakable")
        dead = await speech(running, "亡")
        assert (dead.status_code, code_of(dead)) == (503, "engine_lost")
        missing = await speech(running, "好")
        assert (missing.status_code, code_of(missing)) == (503, "not_ready")
        assert (await running.client.get("/readyz")).status_code == 503
        assert (await running.client.get("/livez")).status_code == 200
        async with asyncio.timeout(10):
            await running.server.synthesis.engine.ready.wait()
        assert (await speech(running, "好", max_seconds=1)).status_code == 200


async def test_a_bug_on_the_way_leaves_no_place_taken(serve, monkeypatch):
    async with serve() as running:
        synthesis = running.server.synthesis
        for kind, broken in (
            ("mp3", "api.speech.Chain"),
            ("wav", "api.speech.as_whole_wav"),
            ("mp3", "voices.store.voice_of_seed"),
        ):
            assert (await speech(running, response_format=kind)).status_code == 200
            with monkeypatch.context() as patch:
                patch.setattr(f"chattts_server.{broken}", _bug_of(broken))
                assert (await speech(running, response_format=kind)).status_code == 500
            assert (synthesis.admission.inflight, synthesis.engine._rows) == (0, {}), broken
        values = parsed(await running.metrics())
        assert values["chattts_infer_total", "accepted"] == 4  # three spoken, and one that could not be encoded
        assert values["chattts_infer_duration_seconds_count", "full"] == 4  # it is late, and not lost


def _bug_of(name):
    def bug(*_):
        raise ZeroDivisionError(name)

    return bug


async def test_probes_while_starting_and_ready(serve):
    async with serve("--start-seconds", "1", wait_ready=False) as running:
        assert (await running.client.get("/livez")).status_code == 200
        assert (await running.client.get("/startupz")).status_code == 503
        assert (await running.client.get("/readyz")).status_code == 503
        async with asyncio.timeout(10):
            await running.server.synthesis.engine.ready.wait()
        assert (await running.client.get("/startupz")).status_code == 200
        assert (await running.client.get("/readyz")).status_code == 200


async def test_drain_refuses_new_ones_and_finishes_the_rest(serve):
    async with serve("--step-seconds", "0.02") as running:
        inflight = asyncio.create_task(speech(running, response_format="wav", max_seconds=1))
        await until(lambda: running.server.synthesis.admission.inflight == 1)
        running.server._on_signal(signal.SIGTERM)
        assert (await running.client.get("/readyz")).status_code == 503
        refused = await speech(running)
        assert (refused.status_code, code_of(refused)) == (503, "draining")
        assert refused.headers["connection"] == "close"
        finished = await inflight
        assert (finished.status_code, finished.headers["connection"]) == (200, "close")
        assert duration(finished.content, "wav") == pytest.approx(ONE_SECOND)
        await until(lambda: running.server.should_exit)
        assert running.server.exit_code == 0


async def test_a_connection_that_was_open_before_the_drain_is_served_once_more(serve):
    """Its owner could not know: it is told to close instead of losing a request."""
    async with serve() as running:
        await speech(running, max_seconds=0.1)
        running.server._on_signal(signal.SIGTERM)
        last = await speech(running, response_format="wav", max_seconds=1)
        assert (last.status_code, last.headers["connection"]) == (200, "close")


async def test_an_answer_that_is_read_slowly_is_whole_after_the_drain(serve, monkeypatch):
    async with serve() as running:
        body = {"text": "今天天气很好。" * 100, "max_seconds": 200}
        async with running.client.stream("POST", "/tts", json=body) as response:
            monkeypatch.setattr("chattts_server.serve.LINGER_SECONDS", 0.1)
            running.server._on_signal(signal.SIGTERM)
            await asyncio.sleep(1.2)
            assert running.server.synthesis.engine.hello is not None  # it has not ended, which would cut the answer
            size = sum([len(data) async for data in response.aiter_raw()])
        assert size == int(response.headers["content-length"]) > 5e6


async def test_a_request_that_comes_when_the_drain_is_at_its_end_is_finished(serve, monkeypatch):
    monkeypatch.setattr("chattts_server.serve.LINGER_SECONDS", 0.1)
    async with serve("--step-seconds", "0.03") as running:
        await running.client.get("/livez")  # its connection is from before
        running.server._on_signal(signal.SIGTERM)
        await running.server._drain_task
        last = await speech(running, response_format="wav", max_seconds=1)  # 1.4 s
        assert (last.status_code, last.headers["connection"]) == (200, "close")


async def test_old_connections_are_closed_so_that_new_pods_get_traffic(serve, monkeypatch):
    async with serve() as running:
        assert "connection" not in (await running.client.get("/livez")).headers
        monkeypatch.setattr("chattts_server.api.middleware.MAX_CONNECTION_SECONDS", 0.05)
        await asyncio.sleep(0.1)
        assert (await running.client.get("/livez")).headers["connection"] == "close"


async def test_a_slow_reader_is_not_our_latency_and_holds_little(serve):
    async with serve() as running:
        body = {"input": "今天天气很好。" * 6, "response_format": "pcm", "stream_format": "audio", "max_seconds": 12}
        began = time.monotonic()
        async with running.client.stream("POST", "/v1/audio/speech", json=body) as response:
            async for _ in response.aiter_raw(64 * 1024):
                await asyncio.sleep(0.05)
        assert time.monotonic() - began > 0.3
        values = parsed(await running.metrics())
        assert values["chattts_infer_duration_seconds_count", "stream"] == 1
        assert values["chattts_infer_duration_seconds_sum", "stream"] < time.monotonic() - began


async def test_metrics_are_on_their_own_port_only(serve):
    async with serve(slo_milliseconds="900") as running:
        await speech(running, response_format="wav", max_seconds=1)
        values = parsed(await running.metrics())
        assert values["chattts_infer_duration_seconds_bucket", "0.9", "full"] == 1
        assert values["chattts_audio_seconds_total",] == pytest.approx(47 / 46.875)  # steps decoded
        assert values["chattts_cold_start_seconds", "load"] == 0.5
        assert values["chattts_batch_rows_count",] == 1
        assert (await running.client.get("/metrics")).status_code == 404


async def test_livez_answers_while_the_engine_is_busy(serve):
    async with serve("--step-seconds", "0.01") as running:
        busy = [asyncio.create_task(speech(running, max_seconds=1)) for _ in range(8)]
        worst = 0.0
        for _ in range(20):
            began = time.monotonic()
            await running.client.get("/livez")
            worst = max(worst, time.monotonic() - began)
        assert worst < 0.5
        assert {answer.status_code for answer in await asyncio.gather(*busy)} == {200}


async def test_who_gives_up_after_the_promised_time_is_a_late_request(serve):
    """Else a client's own time limit would hide from the autoscaler just those who wait too long."""
    async with serve("--step-seconds", "0.2") as running:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await speech(running, response_format="wav", max_seconds=4)
        await until(lambda: running.server.synthesis.admission.inflight == 0, 3)
        values = parsed(await running.metrics())
        assert values["chattts_infer_duration_seconds_count", "full"] == 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await speech(running, response_format="wav", max_seconds=4)
        await until(lambda: running.server.synthesis.admission.inflight == 0, 3)
        assert parsed(await running.metrics())["chattts_infer_duration_seconds_count", "full"] == 1


async def test_texts_that_wait_to_be_read_are_bounded(serve):
    async with serve() as running:
        synthesis = running.server.synthesis
        text = "今天天气很好。" * 100
        assert (await speech(running, text=text, response_format="wav", max_seconds=0.5)).status_code == 200
        synthesis._reading += 99_500  # as though others' texts waited
        refused = await speech(running, text=text, response_format="wav", max_seconds=0.5)
        assert (refused.status_code, code_of(refused)) == (429, "queue_full")
        assert refused.headers["retry-after"] == "1"
        assert (await speech(running, response_format="wav", max_seconds=0.5)).status_code == 200
        assert synthesis._reading == 99_500
