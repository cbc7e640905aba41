"""Many who say nothing and many who read slowly: what they hold of the server, and what their mates notice of them."""

import asyncio
import json
import resource
import socket
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.server.test_process import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")
FAKE_SERVER = Path(__file__).parent / "fake_server.py"
READ_BYTES, READ_SECONDS = 100, 0.1  # 1 KB/s
AUDIO_SECONDS = 3.0
MATES_SECONDS = 3.0
KIB_PER_SOCKET, KIB_PER_READER = 150, 600  # at most, of resident memory


def mebibytes(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


async def read_slowly(port):
    """Until it is cancelled: an answer that is streamed, through the smallest buffers that there are."""
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small.setblocking(False)
    await asyncio.get_running_loop().sock_connect(small, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=small, limit=1024)
    body = json.dumps({"input": "今天天气很好。", "response_format": "pcm", "max_seconds": AUDIO_SECONDS}).encode()
    head = f"POST /v1/audio/speech HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    writer.write(head.encode() + b"\r\n\r\n" + body)
    try:
        assert b" 200 " in await reader.readline()
        while await reader.read(READ_BYTES):  # noqa: ASYNC110
            await asyncio.sleep(READ_SECONDS)
    finally:
        writer.close()


async def mates(url, seconds):
    """p99 of short requests, one after the other."""
    taken = []
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            began = time.monotonic()
            answer = await client.post("/tts", json={"text": "你好", "max_seconds": 0.3})
            taken.append(time.monotonic() - began)
            assert answer.status_code == 200
    return sorted(taken)[int(0.99 * len(taken))]


async def crowd(model, idle, readers, seconds):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * (idle + readers))), hard))
    engine = ("--rows", "16", "--step-seconds", "0.0005")
    server = Server(
        [sys.executable, str(FAKE_SERVER), *engine],
        CHATTTS_MODEL=str(model),
        CHATTTS_MAX_QUEUE_WAIT_MILLISECONDS="60000",
    )
    try:
        server.line("engine ready")
        alone = await mates(server.url, seconds)
        empty = mebibytes(server.process.pid)
        port = int(server.url.rpartition(":")[2])
        async with AsyncExitStack() as stack:
            for _ in range(idle):
                address = f"ws://127.0.0.1:{port}/v1/audio/speech/stream"
                await stack.enter_async_context(connect(address, ping_interval=None))
            with_idle = mebibytes(server.process.pid)
            slow = [asyncio.create_task(read_slowly(port)) for _ in range(readers)]
            await asyncio.sleep(1)
            assert not any(task.done() for task in slow), [task.exception() for task in slow if task.done()]
            beside = await mates(server.url, seconds)
            full = mebibytes(server.process.pid)
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, return_exceptions=True)
        server.inflight(0)
        after = await mates(server.url, seconds)
        return alone, beside, after, (with_idle - empty) * 1024 / idle, (full - with_idle) * 1024 / readers
    finally:
        server.end()


def judge(found):
    alone, beside, after, socket_kib, reader_kib = found
    print(
        f"mates' p99 {alone:.3f}, {beside:.3f}, {after:.3f} s; {socket_kib:.0f} KiB a socket, {reader_kib:.0f} a reader"
    )
    assert beside < max(3 * alone, 0.25)
    assert after < max(3 * alone, 0.25)
    assert socket_kib < KIB_PER_SOCKET
    assert reader_kib < KIB_PER_READER


async def test_idle_sockets_and_slow_readers_hold_little_and_hinder_nobody(hollow):
    judge(await crowd(hollow, 100, 20, MATES_SECONDS))


@pytest.mark.engine
@pytest.mark.long
async def test_a_thousand_idle_sockets_and_two_hundred_slow_readers_hold_little_and_hinder_nobody(hollow):
    judge(await crowd(hollow, 1000, 200, 30.0))
