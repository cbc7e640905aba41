"""GET /v1/models, with the licence of what speaks."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from chattts_server.engine.checkpoint import Checkpoint
from chattts_server.errors import NotFound

router = APIRouter()
MODEL_ID = "chattts"
CREATED = 1716768000  # 2024-05-27, ChatTTS's release


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    return {"object": "list", "data": [_model(request.app.state.checkpoint)]}


@router.get("/v1/models/{model_id}")
async def model(request: Request, model_id: str) -> dict[str, Any]:
    if model_id != MODEL_ID:
        raise NotFound("there is no such model", code="model_not_found", param="model")
    return _model(request.app.state.checkpoint)


def _model(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "id": MODEL_ID,
        "object": "model",
        "created": CREATED,
        "owned_by": "random weights" if checkpoint.random else "2noise",
        "licenses": {
            "weights": "none: random numbers, the sound is noise"
            if checkpoint.random
            else "CC-BY-NC-4.0 (released ChatTTS weights)",
            "model_code": "AGPL-3.0-or-later (ChatTTS)",
            "server": "Apache-2.0",
        },
        "source": "https://github.com/2noise/ChatTTS",
    }
