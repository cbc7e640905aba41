"""A server with an engine that behaves (fake_engine.py), on loopback and free ports."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Callable
from pathlib import Path

import av
import httpx

from chattts_server.config import Settings, read_settings
from chattts_server.engine.client import EngineCommand
from chattts_server.serve import SpeechServer

FAKE_ENGINE = Path(__file__).parent / "fake_engine.py"


def settings_of(folder: Path, **changes: str) -> Settings:
    environment = {
        "CHATTTS_MODEL": str(folder), "CHATTTS_DEVICE": "cpu", "CHATTTS_HOST": "127.0.0.1", "CHATTTS_PORT": "0",
        "CHATTTS_METRICS_PORT": "0", "CHATTTS_LOG_FORMAT": "text",
    }  # fmt: skip
    return read_settings(environment | {f"CHATTTS_{key.upper()}": value for key, value in changes.items()})


def fake_command(*flags: str, watchdog_seconds: float = 30.0) -> EngineCommand:
    return EngineCommand([sys.executable, str(FAKE_ENGINE), *flags], watchdog_seconds)


class Running:
    """A server in this event loop, and a client for it."""

    def __init__(self, server: SpeechServer, client: httpx.AsyncClient) -> None:
        self.server = server
        self.client = client
        self.port = client.base_url.port

    async def metrics(self) -> str:
        port = self.server.config.app.state.metrics_port  # type: ignore[union-attr]
        return (await self.client.get(f"http://127.0.0.1:{port}/metrics")).text


async def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """For what happens in another process and cannot be awaited."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


ONE_SECOND = 23808 / 24000  # 47 steps


def duration(data: bytes, kind: str) -> float:
    with av.open(io.BytesIO(data), format=kind) as container:
        return float(sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0)))


async def speech(running: Running, text: str = "你好", **fields: object) -> httpx.Response:
    return await running.client.post("/v1/audio/speech", json={"model": "tts-1", "input": text, **fields})


def code_of(response: httpx.Response) -> str:
    return str(response.json()["error"]["code"])
