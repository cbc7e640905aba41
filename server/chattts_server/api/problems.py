"""Whatever goes wrong, in OpenAI's error shape. Knows the table of errors.py, no route."""

from __future__ import annotations

import logging
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from chattts_server.api.middleware import REQUEST_ID
from chattts_server.errors import MALFORMED, EngineFailure, InvalidRequest, NotFound, ServerError, answer_for, body_of
from chattts_server.synthesis import Synthesis

log = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    app.add_exception_handler(ServerError, _server_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(Exception, _bug)


def response_to(request: Request, error: ServerError, status: int | None = None) -> JSONResponse:
    request_id = str(request.scope["state"].get("request_id", ""))
    headers = {REQUEST_ID: request_id}  # a bug is answered outside of the middleware that sets it
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    return JSONResponse(body_of(error, request_id), status or answer_for(error).status, headers)


async def _server_error(request: Request, error: Exception) -> JSONResponse:
    return response_to(request, cast(ServerError, error))


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    synthesis: Synthesis = request.app.state.synthesis
    synthesis.refuse_invalid()
    return response_to(request, as_invalid(cast(RequestValidationError, error).errors()[0]))


def as_invalid(first: dict[str, Any]) -> InvalidRequest:
    """The first problem, with the field's name; never the value, which may be the user's text."""
    if first["type"] == "json_invalid":
        return InvalidRequest("the body is not valid JSON", code=MALFORMED)
    field = ".".join(str(part) for part in first["loc"][1:]) or None
    code = "unsupported_format" if field in ("response_format", "stream_format") else "invalid_value"
    message = str(first["msg"])
    return InvalidRequest(f"{field}: {message}" if field else message, code=code, param=field)


async def _http_exception(request: Request, error: Exception) -> JSONResponse:
    problem = cast(HTTPException, error)
    code = _HTTP_CODES.get(problem.status_code, "invalid_request")
    return response_to(request, NotFound(str(problem.detail), code=code), problem.status_code)


_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


async def _bug(request: Request, error: Exception) -> JSONResponse:
    log.error("bug", exc_info=error, extra={"request_id": request.scope["state"].get("request_id")})
    return response_to(request, EngineFailure("internal error", code="internal_error"))
