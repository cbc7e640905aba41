"""The pages at / and /docs: files from this folder, under a policy that lets nothing else in. Knows no speech."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from chattts_server.errors import NotFound

router = APIRouter(include_in_schema=False)
TYPES = {"html": "text/html; charset=utf-8", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
# No inline script or style, nothing from elsewhere; blob: is what was recorded or spoken in this very tab.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "media-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class Asset:
    body: bytes
    media_type: str
    etag: str


def _read(name: str) -> Asset:
    body = files(__package__).joinpath(name).read_bytes()
    return Asset(body, TYPES[name.rpartition(".")[2]], f'"{hashlib.sha256(body).hexdigest()[:32]}"')


ASSETS = {
    entry.name: _read(entry.name) for entry in files(__package__).iterdir() if entry.name.rpartition(".")[2] in TYPES
}
PATHS = frozenset({"/", "/docs", *(f"/page/{name}" for name in ASSETS)})


@router.get("/")
async def page(request: Request) -> Response:
    return _answer(request, "index.html")


@router.get("/docs")
async def docs(request: Request) -> Response:
    """FastAPI's own page would load its scripts from elsewhere."""
    if request.app.openapi_url is None:
        raise NotFound("this service has its documents off", code="not_found")
    return _answer(request, "docs.html")


@router.get("/page/{name}")
async def asset(request: Request, name: str) -> Response:
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    found = ASSETS.get(name)
    if found is None:
        raise NotFound("there is no such file", code="not_found")
    headers = {**HEADERS, "etag": found.etag}
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    return Response(found.body, media_type=found.media_type, headers=headers)
