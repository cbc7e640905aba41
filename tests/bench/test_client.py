"""What one request can end in, against a service that really does it."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp import web

from bench.client import Answer, Client, Speech, checked_url, judge_pcm, judge_wav
from tests.bench.fake_service import FakeService, cut_in_the_middle, serving, wav


async def ask(service: FakeService, *, timeout: float = 2.0, speech: Speech | None = None) -> Answer:
    async with serving(service):
        client = Client(service.url, speech or Speech(), timeout_seconds=timeout)
        try:
            return await client.speak("你好", seed=7)
        finally:
            await client.aclose()


async def test_a_whole_wav_is_ok_and_measured() -> None:
    service = FakeService()
    answer = await ask(service, speech=Speech(max_seconds=1, voice="a"))
    assert (answer.kind, answer.audio_seconds, answer.body_bytes) == ("ok", 0.05, len(wav(0.05)))
    assert service.requests == [{"text": "你好", "max_seconds": 1, "voice": "a", "seed": 7}]


async def test_a_refusal_keeps_its_retry_after() -> None:
    async def refuse(service: FakeService, request: web.Request, number: int) -> web.Response:
        return web.json_response({"error": {}}, status=429, headers={"Retry-After": "3"})

    answer = await ask(FakeService(fault=refuse))
    assert (answer.kind, answer.retry_after_s) == ("rejected_429", 3.0)


async def test_an_error_status_is_named() -> None:
    async def fail(service: FakeService, request: web.Request, number: int) -> web.Response:
        return web.Response(status=503)

    assert (await ask(FakeService(fault=fail))).kind == "status_503"


async def test_a_redirect_is_not_followed() -> None:
    async def elsewhere(service: FakeService, request: web.Request, number: int) -> web.Response:
        return web.Response(status=307, headers={"Location": f"{service.url}/other"})

    service = FakeService(fault=elsewhere)
    assert (await ask(service)).kind == "status_307"
    assert len(service.requests) == 1


async def test_a_body_shorter_than_promised_is_cut() -> None:
    async def cut(service: FakeService, request: web.Request, number: int) -> web.StreamResponse:
        return await cut_in_the_middle(request)

    assert (await ask(FakeService(fault=cut))).kind == "cut"


async def test_broken_chunks_are_cut() -> None:
    async def broken(service: FakeService, request: web.Request, number: int) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(wav(0.05)[:100])
        assert request.transport is not None
        request.transport.close()
        return response

    assert (await ask(FakeService(fault=broken))).kind == "cut"


async def test_a_connection_that_is_dropped_before_the_answer_is_reset() -> None:
    async def drop(service: FakeService, request: web.Request, number: int) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    assert (await ask(FakeService(fault=drop))).kind == "reset"


async def test_a_complete_answer_that_is_no_sound_is_bad() -> None:
    async def text(service: FakeService, request: web.Request, number: int) -> web.Response:
        return web.Response(text="hello")

    assert (await ask(FakeService(fault=text))).kind == "bad_body"


async def test_a_slow_answer_is_a_timeout() -> None:
    assert (await ask(FakeService(delay=5), timeout=0.1)).kind == "timeout"


async def test_no_listener_is_connect() -> None:
    with socket.socket() as taken:  # bound, not listening
        taken.bind(("127.0.0.1", 0))
        client = Client(f"http://127.0.0.1:{taken.getsockname()[1]}", Speech(), timeout_seconds=2)
        assert (await client.speak("x")).kind == "connect"
        await client.aclose()


async def test_something_that_is_not_http_is_bad_http() -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        writer.write(b"220 smtp ready\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        client = Client(f"http://127.0.0.1:{port}", Speech(), timeout_seconds=2)
        assert (await client.speak("x")).kind == "bad_http"
        await client.aclose()


async def test_a_stream_knows_its_first_audio() -> None:
    service = FakeService(delay=0.3)
    async with serving(service):
        client = Client(service.url, Speech(stream=True, max_seconds=1), timeout_seconds=2)
        loop = asyncio.get_running_loop()
        begun = loop.time()  # the client's clock is time.monotonic, as the loop's is
        answer = await client.speak("hello")
        ended = loop.time()
        await client.aclose()
    assert answer.first_byte_at is not None
    assert ended - answer.first_byte_at > 0.2
    assert begun < answer.first_byte_at
    assert (answer.kind, answer.audio_seconds) == ("ok", 0.2)
    assert service.requests[0]["input"] == "hello"


@pytest.mark.parametrize(("keep_alive", "connections"), [(False, 5), (True, 1)])
async def test_each_request_is_a_new_connection_unless_told_otherwise(keep_alive: bool, connections: int) -> None:
    service = FakeService()
    async with serving(service):
        client = Client(service.url, Speech(), timeout_seconds=2, keep_alive=keep_alive)
        assert {(await client.speak("x")).kind for _ in range(5)} == {"ok"}
        await client.aclose()
    assert len(service.peers) == connections


def test_a_wav_must_tell_the_truth() -> None:
    good = wav(0.1)
    assert judge_wav(good) == ("ok", 0.1)
    assert judge_wav(good[:-2])[0] == "cut"
    assert judge_wav(good + b"\0\0")[0] == "bad_body"
    assert judge_wav(wav(0))[0] == "bad_body"
    assert judge_wav(b"")[0] == "bad_body"
    assert judge_wav(good[:40] + b"\xff\xff\xff\x7f" + good[44:])[0] == "bad_body"  # data longer than the file


def test_pcm_is_whole_samples() -> None:
    assert judge_pcm(b"\0\0" * 2400) == ("ok", 0.1)
    assert judge_pcm(b"\0")[0] == judge_pcm(b"")[0] == "bad_body"


@pytest.mark.parametrize("url", ["https://x", "x", "ftp://x", "http://", "http://x/?q=1", "http://u@x", ""])
def test_only_plain_http_addresses_are_taken(url: str) -> None:
    with pytest.raises(ValueError, match="must be http://"):
        checked_url(url)


def test_a_path_in_the_address_is_kept() -> None:
    assert checked_url("http://x:8001/apis/proxy/") == "http://x:8001/apis/proxy"
