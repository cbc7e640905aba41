"""What clients say on the WebSocket. Every number is bounded by schemas.py; knows no connection."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from chattts_server.api.problems import as_invalid
from chattts_server.api.schemas import AudioFormat, Common, Text
from chattts_server.errors import InvalidRequest


class Start(Common):
    """The first message: how everything of this connection is spoken."""

    type: Literal["start"]
    response_format: AudioFormat = "pcm"
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Piece(_Said):
    type: Literal["text"]
    text: Text


class Flush(_Said):
    """Speak what is there, though no sentence has ended."""

    type: Literal["flush"]


class Cancel(_Said):
    """Be silent now: the listener speaks."""

    type: Literal["cancel"]


class End(_Said):
    """No more text; speak the rest, then close."""

    type: Literal["end"]


Said = Start | Piece | Flush | Cancel | End
_KINDS = ("start", "text", "flush", "cancel", "end")
_SAID: TypeAdapter[Said] = TypeAdapter(Annotated[Said, Field(discriminator="type")])


def understood(text: str | None) -> Said | InvalidRequest:
    """`text`: None when the message was binary."""
    if text is None:
        return InvalidRequest("messages are JSON texts, not binary", code="invalid_message")
    try:
        return _SAID.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if first["type"].startswith("union_tag"):
            return InvalidRequest(f"type must be one of {', '.join(_KINDS)}", code="invalid_message", param="type")
        return as_invalid(dict(first))
