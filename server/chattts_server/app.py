"""create_app(): the wiring, in one place. The lifespan starts the engine and ends it; serve.py listens and drains."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from chattts_server import __version__
from chattts_server.admission import Admission
from chattts_server.api import health, models, problems, realtime, speech, status, voices
from chattts_server.api.auth import Authentication, KeyRing
from chattts_server.api.middleware import MAX_BODY_BYTES, BodyLimit, RequestFrame
from chattts_server.api.page import assets
from chattts_server.budget import Budget
from chattts_server.config import Settings
from chattts_server.engine.checkpoint import open_checkpoint
from chattts_server.engine.client import EngineClient, EngineCommand
from chattts_server.metrics import Metrics, MetricsServer
from chattts_server.synthesis import Synthesis
from chattts_server.text.tokens import PromptTokenizer
from chattts_server.tracing import Traces
from chattts_server.voices.store import Place, Voices

# Probes, and what says nothing about anybody. All other paths need a key where there are keys.
OPEN_PATHS = frozenset({"/livez", "/readyz", "/startupz", "/openapi.json", *assets.PATHS})


def create_app(
    settings: Settings,
    command: EngineCommand | None = None,
    on_fatal: Callable[[int], None] = lambda _: None,
    traces: Traces | None = None,
) -> FastAPI:
    """`command`: another engine process (tests). `on_fatal` gets the exit code when the engine cannot be had.

    The app closes `traces` at its end."""
    metrics = Metrics(settings.slo_milliseconds / 1000, settings.slo_max_audio_seconds)
    engine = EngineClient(
        command or _engine_command(settings),
        on_report=lambda report: synthesis.take_report(report),
        on_hello=lambda hello: synthesis.greet(hello),
        on_fatal=on_fatal,
    )
    budget = Budget(settings.key_audio_seconds_per_minute)
    admission = Admission(settings.max_queue_wait_milliseconds / 1000, budget=budget)
    shelf = Voices(Place(settings.voices, settings.voices_config_map))
    synthesis = Synthesis(engine, PromptTokenizer(settings.model), admission, metrics, shelf)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        metrics_server = MetricsServer(metrics, settings.host, settings.metrics_port)
        app.state.metrics_port = metrics_server.port
        await engine.start()  # not awaited to its Hello: the probes answer meanwhile
        try:
            async with shelf.watched():
                yield
        finally:
            await engine.stop()
            metrics_server.close()
            if traces is not None:
                await asyncio.to_thread(traces.close)

    app = FastAPI(
        title="ChatTTS speech server",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        openapi_url="/openapi.json" if settings.docs else None,
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.synthesis = synthesis
    app.state.traces = traces
    app.state.voices = shelf
    app.state.patience = realtime.Patience()
    app.state.checkpoint = open_checkpoint(settings.model)
    for router in (
        speech.router,
        realtime.router,
        voices.router,
        models.router,
        status.router,
        health.router,
        assets.router,
    ):
        app.include_router(router)
    problems.install(app)
    # Outermost last: arrival and id, then the key, then the body's limit, then the routes.
    # A form is a little more than the file in it.
    app.add_middleware(BodyLimit, larger={("POST", voices.PATH): voices.MAX_UPLOAD_BYTES + MAX_BODY_BYTES})
    keys = None if settings.api_keys is None else KeyRing(settings.api_keys)
    app.add_middleware(Authentication, keys=keys, is_open=OPEN_PATHS.__contains__)
    app.add_middleware(RequestFrame, clock=time.monotonic, is_draining=lambda: synthesis.draining, traces=traces)
    app.add_middleware(ArrivalClock)
    return app


def _engine_command(settings: Settings) -> EngineCommand:
    rows = settings.max_batch_size
    return EngineCommand.of(settings.model, settings.device, settings.dtype, rows, settings.log_format)


class ArrivalClock:
    """Stamps the arrival before anything else is done with the request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope.setdefault("state", {})["arrived"] = time.monotonic()
        await self._app(scope, receive, send)
