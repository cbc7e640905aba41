"""A speech service that behaves: real HTTP on loopback, real WAV bodies, and faults that a test turns on."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Fault = Callable[["FakeService", web.Request, int], Awaitable[web.StreamResponse | None]]
SAMPLE_RATE = 24_000


def wav(seconds: float) -> bytes:
    data = b"\0\0" * int(seconds * SAMPLE_RATE)
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, 1, SAMPLE_RATE,
                       SAMPLE_RATE * 2, 2, 16)  # fmt: skip
    return head + struct.pack("<4sI", b"data", len(data)) + data


@dataclass(slots=True)
class FakeService:
    """Answers 0.05 s of silence after `delay`; `fault` may answer instead (None: it does not)."""

    delay: float = 0.0
    fault: Fault | None = None
    rows: int | None = None  # requests served at once, as a real engine has; None = any number
    requests: list[dict[str, Any]] = field(default_factory=list)
    peers: set[tuple[str, int]] = field(default_factory=set)
    url: str = ""
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    _free: asyncio.Semaphore | None = None

    async def speak(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        async with self._arrived:
            self._arrived.notify_all()
        assert request.transport is not None
        self.peers.add(request.transport.get_extra_info("peername"))
        if self.fault is not None:
            answer = await self.fault(self, request, len(self.requests) - 1)
            if answer is not None:
                return answer
        if self._free is None:
            await asyncio.sleep(self.delay)
        else:
            async with self._free:
                await asyncio.sleep(self.delay)
        return web.Response(body=wav(0.05), content_type="audio/wav")

    async def seen(self, number: int) -> None:
        """Returns once so many requests have come."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= number)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """First piece at once, second after `delay`."""
        self.requests.append(await request.json())
        response = web.StreamResponse(headers={"Content-Type": "audio/pcm"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"\0\0" * 2400)
        await asyncio.sleep(self.delay)
        await response.write(b"\0\0" * 2400)
        return response


@asynccontextmanager
async def serving(service: FakeService) -> AsyncIterator[FakeService]:
    app = web.Application()
    app.router.add_post("/tts", service.speak)
    app.router.add_post("/v1/audio/speech", service.stream)
    if service.rows is not None:
        service._free = asyncio.Semaphore(service.rows)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield service
    finally:
        await runner.cleanup()


async def cut_in_the_middle(request: web.Request) -> web.StreamResponse:
    """Promises a whole WAV by Content-Length, sends half of it and hangs up."""
    body = wav(0.5)
    response = web.StreamResponse(headers={"Content-Type": "audio/wav", "Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    assert request.transport is not None
    request.transport.close()
    return response
