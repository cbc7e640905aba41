"""Probes. Full is not unready: leaving the Service would push a full server's load onto the others."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from chattts_server.engine.client import EngineClient
from chattts_server.synthesis import Synthesis

router = APIRouter()
MAX_HEARTBEAT_AGE_SECONDS = 90.0  # the watchdog acts long before; this is for when it does not


@router.get("/livez", summary="The event loop turns and the engine's heart beats")
async def livez(request: Request) -> JSONResponse:
    age = _engine(request).heartbeat_age
    alive = age is None or age < MAX_HEARTBEAT_AGE_SECONDS
    return JSONResponse({"status": "alive" if alive else "engine hung"}, 200 if alive else 503)


@router.get("/readyz", summary="False only while starting, draining, or without a live engine")
async def readyz(request: Request) -> JSONResponse:
    synthesis: Synthesis = request.app.state.synthesis
    if synthesis.draining:
        return JSONResponse({"status": "draining"}, 503)
    if _engine(request).hello is None:
        return JSONResponse({"status": "no engine"}, 503)
    return JSONResponse({"status": "ready"})


@router.get("/startupz", summary="The engine was ready once")
async def startupz(request: Request) -> JSONResponse:
    started = _engine(request).started_once
    return JSONResponse({"status": "started" if started else "starting"}, 200 if started else 503)


def _engine(request: Request) -> EngineClient:
    synthesis: Synthesis = request.app.state.synthesis
    return synthesis.engine
