"""What goes in and what comes out, on one server that all tests here share."""

import json
import threading

import pytest
import pytest_asyncio

from chattts_server.audio.chain import as_whole_wav
from tests.server.harness import ONE_SECOND, code_of, duration, speech

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(serve):
    async with serve() as shared:
        yield shared


async def test_every_format_is_decodable_and_as_long_as_asked(running):
    for kind, media in (("wav", "audio/wav"), ("mp3", "audio/mpeg"), ("pcm", "audio/pcm")):
        response = await speech(running, response_format=kind, max_seconds=1)
        assert response.status_code == 200
        assert response.headers["content-type"] == media
        if kind == "pcm":
            assert len(response.content) == 2 * 23808
        else:
            assert duration(response.content, kind) == pytest.approx(ONE_SECOND, abs=0.1)
    default = await speech(running, max_seconds=1)
    assert default.headers["content-type"] == "audio/mpeg"
    assert default.headers["transfer-encoding"] == "chunked"


async def test_tts_is_wav_with_its_exact_length(running):
    response = await running.client.post("/tts", json={"text": "今天123", "max_seconds": 1})
    assert response.headers["content-type"] == "audio/wav"
    assert int(response.headers["content-length"]) == len(response.content) == 44 + 2 * 23808
    assert response.headers["x-chattts-dropped-characters"] == "0"
    dropped = await running.client.post("/tts", json={"text": "好😀", "max_seconds": 1})
    assert dropped.headers["x-chattts-dropped-characters"] == "1"


# (body, status, code)
BAD = [
    ({"input": ""}, 422, "invalid_value"),
    ({"input": "好" * 10_001}, 422, "invalid_value"),
    ({"input": "😀？"}, 422, "unreadable_text"),
    ({"input": "好", "voice": "nobody"}, 422, "unknown_voice"),
    ({"input": "好", "voice": "seed:x"}, 422, "unknown_voice"),
    ({"input": "好", "response_format": "midi"}, 422, "unsupported_format"),
    ({"input": "好", "stream_format": "websocket"}, 422, "unsupported_format"),
    ({"input": "好", "temperature": 0}, 422, "invalid_value"),
    ({"input": "好", "top_k": 100_000}, 422, "invalid_value"),
    ({"input": "好", "max_seconds": -1}, 422, "invalid_value"),
    ({"input": "好", "speed": 0.24}, 422, "invalid_value"),
    ({"input": "好", "speed": 4.01}, 422, "invalid_value"),
    ({"input": "好", "sample_rate": 44100}, 422, "invalid_value"),
    ({"input": "好", "denoise": 512}, 422, "invalid_value"),
    ({"input": "好", "voice": {"id": "alloy", "name": "x"}}, 422, "invalid_value"),
    ({"voice": "alloy"}, 422, "invalid_value"),
    ([1, 2], 422, "invalid_value"),
]


async def test_bad_input_is_named_in_the_shape_of_openai(running, subtests):
    for body, status, code in BAD:
        with subtests.test(body=str(body)[:60]):
            response = await running.client.post("/v1/audio/speech", json=body)
            error = response.json()["error"]
            assert (response.status_code, error["code"], error["type"]) == (status, code, "invalid_request_error")
            assert error["request_id"] == response.headers["x-request-id"]
            assert "好好" not in response.text  # nobody's text comes back


async def test_what_is_no_request_at_all(running):
    client = running.client
    no_json = await client.post("/tts", content=b"{", headers={"content-type": "application/json"})
    assert (no_json.status_code, code_of(no_json)) == (400, "malformed_json")
    large = await client.post("/tts", content=b"x" * 70_000)
    assert (large.status_code, code_of(large)) == (413, "body_too_large")

    async def endless():
        for _ in range(100):
            yield b"x" * 1000

    unannounced = await client.post("/tts", content=endless())
    assert (unannounced.status_code, code_of(unannounced)) == (413, "body_too_large")
    surrogate = await client.post("/tts", content=b'{"text": "\\ud800"}', headers={"content-type": "application/json"})
    assert surrogate.status_code in (400, 422)
    assert code_of(await client.get("/nothing")) == "not_found"
    assert (await client.get("/tts")).status_code == 405


async def test_models_name_their_licence(running):
    model = (await running.client.get("/v1/models")).json()["data"][0]
    assert model["id"] == "chattts"
    assert model["licenses"]["weights"] == "CC-BY-NC-4.0 (released ChatTTS weights)"
    assert model["licenses"]["model_code"].startswith("AGPL")


async def test_the_documents_of_the_api_can_be_read(running):
    document = (await running.client.get("/openapi.json")).json()
    assert {"/v1/audio/speech", "/tts", "/v1/models", "/livez", "/readyz", "/startupz"} <= set(document["paths"])
    assert json.dumps(document)


async def test_long_text_comes_in_order_and_whole(running):
    text = "今天天气很好。" * 20
    whole = await speech(running, text, response_format="pcm")
    streamed = await speech(running, text, response_format="pcm", stream_format="audio")
    assert len(whole.content) == len(streamed.content) > 20 * 48000
    wav = await speech(running, text, response_format="wav", stream_format="audio", max_seconds=3)
    assert "content-length" not in wav.headers
    assert len(wav.content) == pytest.approx(44 + 3 * 48000, rel=0.05)


async def test_a_long_answer_is_encoded_beside_the_event_loop(running, monkeypatch):
    threads = []

    def encode(sound, pcm):
        threads.append((len(pcm) > 10 * 4 * 24000, threading.current_thread() is threading.main_thread()))
        return as_whole_wav(sound, pcm)

    monkeypatch.setattr("chattts_server.api.speech.as_whole_wav", encode)
    await speech(running, response_format="wav", max_seconds=1)
    await speech(running, "今天天气很好。" * 20, response_format="wav", max_seconds=20)

    assert threads == [(False, True), (True, False)]
