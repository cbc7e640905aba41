"""The official Python client, unchanged, against our server: formats, streams, its exception classes, its retries."""

import asyncio
import base64
import json
import time

import openai
import pytest
import pytest_asyncio

from tests.server.harness import ONE_SECOND, duration, until
from tests.server.sounds import decoded

pytestmark = pytest.mark.asyncio(loop_scope="module")
SENTENCE = "今天天气很好。"
FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(serve):
    async with serve() as shared:
        yield shared


def client_of(running, retries=0, kind=openai.AsyncOpenAI):
    return kind(base_url=f"http://127.0.0.1:{running.port}/v1", api_key="any", max_retries=retries, timeout=20)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(running):
    async with client_of(running) as client:
        yield client


def ask(text=SENTENCE, **fields):
    return {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": text, **fields}


@pytest.mark.parametrize("kind", FORMATS)
async def test_a_stock_call_in_every_format(client, kind):
    extra = {"seed": 5, "max_seconds": 1, "sample_rate": 16000}
    spoken = await client.audio.speech.create(**ask(response_format=kind), extra_body=extra)
    assert len(decoded(spoken.content, kind, 16000)) / 16000 == pytest.approx(ONE_SECOND, abs=0.2)


async def test_the_default_is_mp3(client, tmp_path):
    spoken = await client.audio.speech.create(**ask(), extra_body={"max_seconds": 1})
    assert spoken.response.headers["content-type"] == "audio/mpeg"
    spoken.write_to_file(tmp_path / "speech.mp3")
    assert duration((tmp_path / "speech.mp3").read_bytes(), "mp3") == pytest.approx(ONE_SECOND, abs=0.15)


async def test_the_synchronous_client(running):
    def call():
        with client_of(running, kind=openai.OpenAI) as client:
            whole = client.audio.speech.create(**ask(response_format="pcm"), extra_body={"seed": 5, "max_seconds": 1})
            with client.audio.speech.with_streaming_response.create(
                **ask(response_format="pcm"), extra_body={"seed": 5, "max_seconds": 1}
            ) as response:
                return whole.content, b"".join(response.iter_bytes())

    whole, streamed = await asyncio.to_thread(call)
    assert len(whole) == 2 * 23808
    assert streamed == whole


async def test_speed_is_of_the_sound_and_a_voice_may_be_an_object(client):
    lengths = {}
    for speed in (0.5, 1.0, 2.0):
        spoken = await client.audio.speech.create(
            model="tts-1", voice={"id": "alloy"}, input="好", response_format="pcm", speed=speed,
        )  # fmt: skip
        lengths[speed] = len(spoken.content) / 48000
    assert lengths[0.5] == pytest.approx(2 * lengths[1.0], abs=0.1)
    assert lengths[2.0] == pytest.approx(lengths[1.0] / 2, abs=0.1)


async def test_max_seconds_is_of_what_is_heard(client):
    spoken = await client.audio.speech.create(
        **ask(SENTENCE * 3, response_format="pcm"), speed=2.0, extra_body={"max_seconds": 1}
    )
    assert len(spoken.content) / 48000 == pytest.approx(1.0, abs=0.1)


async def test_a_streaming_response_comes_while_it_is_made(serve):
    """The engine takes 10 ms a step: a second of audio takes half a second; the first of it is here long before."""
    async with serve("--step-seconds", "0.01") as slow, client_of(slow) as client:
        began, at = time.monotonic(), []
        async with client.audio.speech.with_streaming_response.create(
            **ask(), extra_body={"max_seconds": 4}
        ) as response:
            assert "content-length" not in response.headers
            async for _ in response.iter_bytes():
                at.append(time.monotonic() - began)
        assert at[0] < 1.0 < 1.8 < at[-1]


async def test_events(client):
    text = SENTENCE * 4
    async with client.audio.speech.with_streaming_response.create(
        **ask(text, response_format="pcm", stream_format="sse"), extra_body={"seed": 3}
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in response.iter_lines()]
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    assert names == [event["type"] for event in events]
    assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
    audio = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
    whole = await client.audio.speech.create(**ask(text, response_format="pcm"), extra_body={"seed": 3})
    assert audio == whole.content
    usage = events[-1].pop("usage")
    assert events[-1] == {"type": "speech.audio.done"}
    assert usage["output_tokens"] == pytest.approx(len(audio) / 48000 * 46.875, abs=2)
    assert usage["input_tokens"] >= len(text)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


async def test_the_clients_own_reader_of_events_raises_on_our_error_event(serve):
    """Its Stream class, as for every other streamed call of OpenAI's API."""
    async with serve() as running, client_of(running) as client:

        async def read(text):
            body = ask(text, response_format="pcm", stream_format="sse")
            events = await client.post(
                "/audio/speech", body=body, cast_to=object, stream=True, stream_cls=openai.AsyncStream[object]
            )
            return [event async for event in events]

        assert (await read(SENTENCE * 20))[-1]["type"] == "speech.audio.done"
        with pytest.raises(openai.APIError, match="engine") as broken:
            await read(SENTENCE * 20 + "亡。")
        assert broken.value.code == "engine_lost"


# (fields, exception class, code)
WRONG = [
    (ask(""), openai.UnprocessableEntityError, "invalid_value"),
    (ask("😀"), openai.UnprocessableEntityError, "unreadable_text"),
    (ask(voice="nobody"), openai.UnprocessableEntityError, "unknown_voice"),
    (ask(speed=9), openai.UnprocessableEntityError, "invalid_value"),
    (ask(response_format="midi"), openai.UnprocessableEntityError, "unsupported_format"),
    (ask("坏"), openai.UnprocessableEntityError, "unspeakable"),
    (ask("好" * 30_000), openai.APIStatusError, "body_too_large"),
    (ask("毒"), openai.InternalServerError, "engine_failed"),
]


@pytest.mark.parametrize(("fields", "kind", "code"), WRONG, ids=[row[2] + str(row[0])[-30:-2] for row in WRONG])
async def test_errors_are_its_exception_classes(client, fields, kind, code):
    with pytest.raises(kind) as raised:
        await client.audio.speech.create(**fields)
    assert raised.value.body["code"] == code
    assert raised.value.request_id == raised.value.body["request_id"] != ""


async def test_errors_that_are_not_of_speech(client):
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nothing")
    with pytest.raises(openai.BadRequestError) as raised:
        await client.post("/audio/speech", content=b"{", cast_to=object)
    assert raised.value.code == "malformed_json"
    assert (await client.models.list()).data[0].id == "chattts"


@pytest.mark.engine
async def test_overload_and_its_own_retries(serve):
    """One row at a time; 2 s of audio fill the queue. Without retries it is a RateLimitError, with them it is audio."""
    flags = ("--step-seconds", "0.01", "--rows", "1", "--throughput", "2")
    async with serve(*flags, max_queue_wait_milliseconds="1000") as running:
        async with client_of(running) as client:
            calls = (
                client.audio.speech.create(**ask(response_format="wav"), extra_body={"max_seconds": 1})
                for _ in range(6)
            )
            answers = await asyncio.gather(*calls, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, Exception)]
        assert refused
        assert {type(answer) for answer in refused} == {openai.RateLimitError}
        assert {answer.code for answer in refused} == {"queue_full"}
        assert all(int(answer.response.headers["retry-after"]) >= 1 for answer in refused)
        async with client_of(running, retries=4) as client:
            calls = (
                client.audio.speech.create(**ask(response_format="wav"), extra_body={"max_seconds": 1})
                for _ in range(6)
            )
            spoken = await asyncio.gather(*calls)
        assert {len(answer.content) for answer in spoken} == {44 + 2 * 23808}
        assert "chattts_infer_total" in await running.metrics()


async def test_a_broken_stream_is_an_exception_not_a_short_file(serve):
    async with serve() as running, client_of(running) as client:
        for kind in ("mp3", "pcm"):
            async with asyncio.timeout(10):
                await running.server.synthesis.engine.ready.wait()
            good = await client.audio.speech.create(**ask(SENTENCE * 20, response_format=kind))
            assert duration(good.content, "mp3") > 20 if kind == "mp3" else len(good.content) > 20 * 48000
            with pytest.raises(openai.APIConnectionError):
                await client.audio.speech.create(**ask(SENTENCE * 20 + "亡。", response_format=kind))


async def test_leaving_a_streaming_response_frees_the_row(running, client):
    async with client.audio.speech.with_streaming_response.create(
        **ask(SENTENCE * 60, response_format="pcm")
    ) as response:
        await anext(response.iter_bytes())
        assert running.server.synthesis.admission.inflight == 1
    await until(lambda: running.server.synthesis.admission.inflight == 0)
    assert not running.server.synthesis.engine._rows
