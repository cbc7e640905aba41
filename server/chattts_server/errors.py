"""Everything that can be answered with an error, and the one table from kind to HTTP status. Knows no route.

ServerError
|- InvalidRequest      the request can never succeed as it is
|  |- BodyTooLarge
|  |- Unauthorized     no key, or not one of ours
|  |- Conflict         not while things are as they are: the name is taken, or the place is read only
|  '- NotFound         no such path, method or object
|- Overloaded          later it may: Retry-After says when
|- NotReady            no engine (yet), or draining
|- DeadlinePassed      admitted, but its time was over
|- ClientGone          nobody is left to be answered
|- EngineFailure       our fault
'- StorageFailure      our fault, or the volume's

CannotStart            ends the process with 78 and one line (not an answer)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


class CannotStart(Exception):
    """A setting that no restart will mend: one line with key, value and rule, then exit 78."""


class ServerError(Exception):
    """`message` goes to the client, so it never holds a path, a stack or the user's text."""

    def __init__(self, message: str, *, code: str, param: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after  # seconds


class InvalidRequest(ServerError): ...


class BodyTooLarge(InvalidRequest): ...


class Unauthorized(InvalidRequest): ...


class Conflict(InvalidRequest): ...


class NotFound(InvalidRequest): ...


class Overloaded(ServerError): ...


class NotReady(ServerError): ...


class DeadlinePassed(ServerError):
    """`phase`: where the request was then. engine: the engine did not say in time."""

    phase: Literal["queue", "prefill", "decode", "vocode", "engine"] = "engine"


class ClientGone(ServerError): ...


class EngineFailure(ServerError): ...


class StorageFailure(ServerError): ...


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    type: str  # OpenAI's word


# The OpenAI clients map the status to their exception classes and retry 408, 409, 429 and 5xx by themselves.
ANSWERS: dict[type[ServerError], Answer] = {
    InvalidRequest: Answer(422, "invalid_request_error"),
    BodyTooLarge: Answer(413, "invalid_request_error"),
    Unauthorized: Answer(401, "invalid_request_error"),
    Conflict: Answer(409, "invalid_request_error"),
    NotFound: Answer(404, "invalid_request_error"),
    Overloaded: Answer(429, "rate_limit_error"),
    NotReady: Answer(503, "service_unavailable"),
    DeadlinePassed: Answer(504, "timeout"),
    ClientGone: Answer(499, "client_closed_request"),
    EngineFailure: Answer(500, "server_error"),
    StorageFailure: Answer(500, "server_error"),
}
# These are answered with 400 instead of 422: what came is no request of this shape, or is right in another form.
MALFORMED, WHOLE_TOO_LONG, WHOLE_TOO_MUCH = "malformed_json", "too_long_for_deadline", "too_long_for_whole"


def answer_for(error: ServerError) -> Answer:
    if error.code in (MALFORMED, WHOLE_TOO_LONG, WHOLE_TOO_MUCH):
        return Answer(400, "invalid_request_error")
    return ANSWERS[type(error)]


def body_of(error: ServerError, request_id: str) -> dict[str, object]:
    """OpenAI's error shape. `request_id` lets a user's report be found in the log."""
    return {
        "error": {
            "message": error.message,
            "type": answer_for(error).type,
            "code": error.code,
            "param": error.param,
            "request_id": request_id,
        }
    }
