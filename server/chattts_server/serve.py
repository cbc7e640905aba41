"""Listens, and ends well: SIGTERM drains, a second one ends at once. Knows uvicorn, as http_protocol.py does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI

from chattts_server.api.middleware import MAX_BODY_BYTES
from chattts_server.app import create_app
from chattts_server.config import Settings
from chattts_server.engine.client import EngineCommand
from chattts_server.http_protocol import SpeechProtocol, SpeechSocket
from chattts_server.synthesis import Synthesis
from chattts_server.tracing import Traces, open_traces

KEEP_ALIVE_SECONDS = 75  # longer than clients keep idle connections, so that it is they who close
# After SIGTERM a client may be just about to use its old connection: it is served once more and told to close.
LINGER_SECONDS = 1.0
PING_SECONDS = 20.0  # a WebSocket whose other side does not answer within as long again is closed
log = logging.getLogger(__name__)


def serve(settings: Settings, command: EngineCommand | None = None) -> int:
    """Returns the exit code: 0 after a drain, 78 or 1 when there can be no engine."""
    server = SpeechServer(settings, command, open_traces(os.environ))
    server.run()
    return server.exit_code


class SpeechServer(uvicorn.Server):
    def __init__(self, settings: Settings, command: EngineCommand | None = None, traces: Traces | None = None) -> None:
        self.exit_code = 0
        self._settings = settings
        self._signals = 0
        self._drain_task: asyncio.Task[None] | None = None
        self._app: FastAPI = create_app(settings, command, self.fail, traces)
        super().__init__(
            uvicorn.Config(
                self._app, host=settings.host, port=settings.port, loop="uvloop", http=SpeechProtocol, ws=SpeechSocket,
                ws_max_size=MAX_BODY_BYTES, ws_per_message_deflate=False,  # audio gets no smaller, and a bomb grows
                ws_ping_interval=PING_SECONDS, ws_ping_timeout=PING_SECONDS,
                lifespan="on", log_config=None, access_log=False, server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS, timeout_graceful_shutdown=1, backlog=4096,
            )
        )  # fmt: skip

    @property
    def synthesis(self) -> Synthesis:
        synthesis: Synthesis = self._app.state.synthesis
        return synthesis

    def fail(self, exit_code: int) -> None:
        self.exit_code = exit_code
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own handler would close the listener at once; ours drains first."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            ports = [bound.getsockname()[1] for server in self.servers for bound in server.sockets]
            log.info("listening", extra={"port": ports[0], "metrics_port": self._app.state.metrics_port})

    def _on_signal(self, number: signal.Signals) -> None:
        self._signals += 1
        if self._signals > 1:
            log.warning("second signal: ending at once")
            pid = self.synthesis.engine.pid
            with contextlib.suppress(ProcessLookupError):
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
            os._exit(128 + number)
        self.synthesis.draining_since = time.monotonic()  # /readyz is false and new requests get 503 from here on
        self.synthesis.drain_begun.set()
        self._drain_task = asyncio.get_running_loop().create_task(self._drain(), name="drain")

    async def _drain(self) -> None:
        began = time.monotonic()
        admission = self.synthesis.admission
        log.info("draining", extra={"inflight": admission.inflight})
        while True:
            elapsed = time.monotonic() - began
            if elapsed >= self._settings.drain_seconds:
                log.warning("drain ended by its limit", extra={"inflight": admission.inflight})
                break
            if elapsed >= LINGER_SECONDS and not self.server_state.tasks and not admission.inflight:
                break
            await asyncio.sleep(0.05)
        # Answers may still be on their way out, and one may just have come in: uvicorn waits for those connections.
        self.config.timeout_graceful_shutdown = math.ceil(max(0.0, self._settings.drain_seconds - elapsed))
        self.should_exit = True
