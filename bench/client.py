"""One request for speech and what became of it. Knows nothing about load: when to send is the caller's matter.

Uses only aiohttp and the standard library, so that it runs in the operator's image. Only http:// is spoken,
no proxy is asked and no redirect followed: the load reaches the address it was given and no other.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from bench.tally import CUT, OK, REJECTED

MAX_BODY_BYTES: Final = 64 * 2**20
MAX_ERROR_BYTES: Final = 64 * 2**10
PCM_BYTES_PER_SECOND: Final = 24_000 * 2  # 16 bit mono, the rate of ChatTTS
LONGEST_RETRY_AFTER: Final = 600.0

# What a request can end in, besides OK, REJECTED and CUT; an unexpected status is "status_<code>".
CONNECT = "connect"  # no connection
RESET = "reset"  # connected, but gone before an answer began
TIMEOUT = "timeout"
BAD_BODY = "bad_body"  # a complete 200 that is not the sound that was asked for
BAD_HTTP = "bad_http"  # not HTTP at all


@dataclass(frozen=True, slots=True)
class Speech:
    """What to ask for. `max_seconds` and `seed` are left out of the body when None."""

    stream: bool = False
    max_seconds: float | None = None
    voice: str | None = None

    @property
    def path(self) -> str:
        return "/v1/audio/speech" if self.stream else "/tts"

    def body(self, text: str, seed: int | None) -> dict[str, object]:
        asked: dict[str, object | None] = {"max_seconds": self.max_seconds, "seed": seed, "voice": self.voice}
        if self.stream:
            named = {"model": "chattts", "input": text, "response_format": "pcm", "stream_format": "audio"}
        else:
            named = {"text": text}
        return named | {key: value for key, value in asked.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Answer:
    kind: str
    first_byte_at: float | None = None  # on the caller's clock
    retry_after_s: float | None = None  # of a refusal that said so
    audio_seconds: float = 0.0
    body_bytes: int = 0


class Client:
    """Sends to one base address. A new connection for each request, unless `keep_alive`: a Service balances
    connections, not requests, so only new connections reach new pods."""

    def __init__(
        self,
        base_url: str,
        speech: Speech,
        *,
        timeout_seconds: float,
        keep_alive: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = checked_url(base_url) + speech.path
        self._speech = speech
        self._clock = clock
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=not keep_alive, limit=0),
            timeout=aiohttp.ClientTimeout(total=timeout_seconds),
        )

    async def aclose(self) -> None:
        await self._session.close()

    async def speak(self, text: str, seed: int | None = None) -> Answer:
        """Never raises for what a server or a network can do: every end is an Answer."""
        begun = False
        try:
            async with self._session.post(
                self._url, json=self._speech.body(text, seed), allow_redirects=False
            ) as response:
                begun = response.status == 200
                return await self._read(response)
        except TimeoutError:
            return Answer(TIMEOUT)
        except aiohttp.ClientConnectorError:
            return Answer(CONNECT)
        except aiohttp.ClientPayloadError:
            return Answer(CUT if begun else RESET)
        except (aiohttp.ServerDisconnectedError, OSError):  # ClientOSError is an OSError
            return Answer(CUT if begun else RESET)
        except aiohttp.ClientError:
            return Answer(BAD_HTTP)

    async def _read(self, response: aiohttp.ClientResponse) -> Answer:
        if response.status != 200:
            await response.content.read(MAX_ERROR_BYTES)  # closing on unread bytes would reset the connection
            kind = REJECTED if response.status == 429 else f"status_{response.status}"
            return Answer(kind, retry_after_s=retry_after(response.headers))
        first_byte_at: float | None = None
        body = bytearray()
        async for piece in response.content.iter_any():
            if first_byte_at is None:
                first_byte_at = self._clock()
            body += piece
            if len(body) > MAX_BODY_BYTES:
                return Answer(BAD_BODY, body_bytes=len(body))
        kind, seconds = judge_pcm(body) if self._speech.stream else judge_wav(body)
        return Answer(kind, first_byte_at, audio_seconds=seconds, body_bytes=len(body))


def checked_url(url: str) -> str:
    """The address without a trailing slash. Raises ValueError unless it is http:// with a host and no query."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError(f"url is {url!r}, must be http://host[:port][/path]")
    return url.rstrip("/")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Whole seconds as our server sends them; a date or anything else counts as missing."""
    value = headers.get("Retry-After", "")
    if not (value.isascii() and value.isdigit()):
        return None
    return min(float(value), LONGEST_RETRY_AFTER)


def judge_wav(body: bytes | bytearray) -> tuple[str, float]:
    """OK and the audio seconds when the header tells the truth about the bytes that came."""
    if len(body) < 12 or body[:4] != b"RIFF" or body[8:12] != b"WAVE":
        return BAD_BODY, 0.0
    promised = int(struct.unpack_from("<I", body, 4)[0]) + 8
    if promised != len(body):
        return (CUT if promised > len(body) else BAD_BODY), 0.0
    seconds = _wav_seconds(body)
    return (BAD_BODY, 0.0) if seconds is None else (OK, seconds)


def _wav_seconds(body: bytes | bytearray) -> float | None:
    """Walks the chunks; None when `fmt ` or `data` is missing, empty or runs over the end."""
    at, bytes_per_second = 12, 0
    while at + 8 <= len(body):
        name = bytes(body[at : at + 4])
        size = int(struct.unpack_from("<I", body, at + 4)[0])
        if at + 8 + size > len(body):
            return None
        if name == b"fmt " and size >= 16:
            bytes_per_second = int(struct.unpack_from("<I", body, at + 16)[0])
        if name == b"data":
            return size / bytes_per_second if size and bytes_per_second else None
        at += 8 + size + size % 2
    return None


def judge_pcm(body: bytes | bytearray) -> tuple[str, float]:
    if not body or len(body) % 2:
        return BAD_BODY, 0.0
    return OK, len(body) / PCM_BYTES_PER_SECOND
