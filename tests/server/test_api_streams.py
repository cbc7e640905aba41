"""Readers that are slow, stand still or leave: what they hold of the server, and for how long."""

import asyncio
import socket
from contextlib import asynccontextmanager

import httpx
import pytest
import pytest_asyncio

from tests.server.harness import speech, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
LONG = {"input": "今天天气很好。" * 20, "response_format": "pcm", "max_seconds": 40}
# What the buffers of a connection and the credit of a row hold: nobody has to read for it to be made.
SHORT = {"max_seconds": 6}
ONE_WAITS_FOR_LONGER = ("--throughput", "10")  # with the limit of 0.5 s, SHORT alone fills the ledger


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(serve):
    """One server for all whose readers leave it as it was."""
    async with serve() as shared:
        yield shared


@asynccontextmanager
async def unread(running, **changes):
    """A response of which only the beginning is read, by a client whose kernel takes little for it."""
    small = httpx.AsyncHTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)])
    async with (
        httpx.AsyncClient(base_url=running.client.base_url, transport=small, timeout=20) as client,
        client.stream("POST", "/v1/audio/speech", json=LONG | changes) as response,
    ):
        assert response.status_code == 200
        data = response.aiter_raw(100)  # dropped, it would close the connection
        await anext(data)
        yield


async def test_audio_that_is_made_holds_no_place_however_slowly_it_is_read(serve):
    async with serve("--step-seconds", "0.001", *ONE_WAITS_FOR_LONGER, max_queue_wait_milliseconds="500") as running:
        admission = running.server.synthesis.admission
        reading = unread(running, **SHORT)
        entering = asyncio.create_task(reading.__aenter__())
        await until(lambda: admission.inflight == 1)
        assert (await speech(running, max_seconds=1)).status_code == 429  # nothing of it is made yet
        await entering
        await until(lambda: admission.audio_seconds == pytest.approx(0))
        assert admission.inflight == 1
        assert (await speech(running, max_seconds=1)).status_code == 200
        await reading.__aexit__(None, None, None)


async def test_a_stream_gives_back_what_it_has_had(running):
    async with unread(running, stream_format="audio"):
        await until(lambda: running.server.synthesis.admission.audio_seconds < 37)
        assert running.server.synthesis.admission.inflight == 1
    await until(lambda: running.server.synthesis.admission.inflight == 0)


@pytest.mark.parametrize("changes", [{"stream_format": "audio"}, {}, {"response_format": "wav"}])
async def test_a_reader_that_stands_still_is_gone(running, monkeypatch, changes):
    monkeypatch.setattr("chattts_server.api.audio_response.STALL_SECONDS", 0.3)
    synthesis = running.server.synthesis
    async with unread(running, **changes):
        await until(lambda: synthesis.admission.inflight == 0, 5)
        assert not synthesis.engine._rows
        await until(lambda: not running.server.server_state.tasks, 2)
        assert (await speech(running, max_seconds=0.1)).status_code == 200


async def test_a_reader_slower_than_the_limit_that_goes_on_is_served(running, monkeypatch):
    monkeypatch.setattr("chattts_server.api.audio_response.STALL_SECONDS", 0.3)
    body, size = LONG | {"stream_format": "audio", "max_seconds": 12}, 0
    async with running.client.stream("POST", "/v1/audio/speech", json=body) as response:
        async for data in response.aiter_raw(48000):
            size += len(data)
            await asyncio.sleep(0.05)
    assert size == pytest.approx(12 * 48000, rel=0.1)


@pytest.mark.parametrize("end", ["。", "亡。"])
async def test_an_http_1_0_body_that_breaks_is_reset_not_ended(serve, end):
    """It has no chunks and no length: its end alone would look like a short success (nginx asks this way)."""
    body = f'{{"input":"{"今天天气很好。" * 20}{end}","response_format":"pcm"}}'.encode()
    async with serve() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        head = (
            f"POST /v1/audio/speech HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        async with asyncio.timeout(15):
            assert b"200" in await reader.readline()
            if end == "。":
                assert len(await reader.read()) > 20 * 48000
            else:
                with pytest.raises(ConnectionResetError):
                    await reader.read()
        writer.close()


async def test_events_that_are_left_free_their_row(running):
    body = LONG | {"input": LONG["input"] * 3, "stream_format": "sse"}
    async with running.client.stream("POST", "/v1/audio/speech", json=body) as response:
        assert (await anext(response.aiter_lines())) == "event: speech.audio.delta"
        assert running.server.synthesis.admission.inflight == 1
    await until(lambda: running.server.synthesis.admission.inflight == 0)
    assert not running.server.synthesis.engine._rows
