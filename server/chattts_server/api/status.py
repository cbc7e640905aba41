"""GET /v1/status: what the server does now, for people and their pages. Programs have /metrics and /readyz."""

from __future__ import annotations

from typing import Any, get_args

from fastapi import APIRouter, Request

from chattts_server.api.schemas import SpeechRequest
from chattts_server.engine.checkpoint import Checkpoint
from chattts_server.synthesis import Synthesis
from chattts_server.voices.store import Voices

router = APIRouter()
FORMATS: tuple[str, ...] = get_args(SpeechRequest.model_fields["response_format"].annotation)


@router.get("/v1/status", summary="Live rows and queue, what speaks, and which formats it can make")
async def status(request: Request) -> dict[str, Any]:
    """Times in seconds. `rows.of` is None while there is no engine."""
    synthesis: Synthesis = request.app.state.synthesis
    voices: Voices = request.app.state.voices
    checkpoint: Checkpoint = request.app.state.checkpoint
    hello, admission = synthesis.engine.hello, synthesis.admission
    of, rows = (None if hello is None else hello.rows), synthesis.engine.open_rows
    throughput = admission.throughput
    wait = 0.0 if throughput is None else admission.audio_seconds / throughput.value
    return {
        "state": "draining" if synthesis.draining else "starting" if hello is None else "ready",
        "rows": {"busy": min(rows, of or 0), "of": of, "waiting": max(0, rows - (of or 0)) + synthesis.queue.waiting},
        "requests": admission.inflight,
        "queued_audio_seconds": round(admission.audio_seconds, 3),
        "predicted_wait_seconds": round(wait, 3),
        "device": None if hello is None else hello.device,
        "dtype": None if hello is None else hello.dtype,
        "random_weights": checkpoint.random,
        "formats": FORMATS,
        "voices_kept_in": voices.place.kind,
        "docs": request.app.openapi_url is not None,
    }
