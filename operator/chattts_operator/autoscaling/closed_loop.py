"""Asks one address for speech, a few clients at a time. A door to HTTP: `chattts-operator calibrate` is its only user.

http:// only, no proxy, no redirect: the load reaches the address that it was given and no other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp

from .calibrate import Step, is_full

MOST_BYTES = 64 * 2**20
PAUSE_SECONDS = 1.0  # after a refusal or a failure


class UrlError(ValueError):
    """No address that load may be sent to."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """So that a calibration cannot become an attack."""

    clients: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    seconds: float = 15.0  # measured at each number of clients
    warm_up_seconds: float = 3.0
    requests: int = 5000  # all in all
    timeout_seconds: float = 60.0


@dataclass(slots=True)
class _Tally:
    latencies: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0


async def measure(
    url: str, texts: Sequence[str], bounds: Bounds, told: Callable[[Step], None] = lambda _: None
) -> list[Step]:
    """More clients at each step until the pod is full or a bound is reached."""
    address, steps, sent = checked(url), [], 0
    timeout = aiohttp.ClientTimeout(total=bounds.timeout_seconds)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        for clients in bounds.clients:
            step, asked = await _hold(session, f"{address}/tts", texts, clients, bounds, bounds.requests - sent)
            steps.append(step)
            told(step)
            sent += asked
            if is_full(steps) or sent >= bounds.requests:
                break
    return steps


def checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise UrlError(f"--url {url!r}: must be http://host[:port][/path]")
    return url.rstrip("/")


async def _hold(
    session: aiohttp.ClientSession, url: str, texts: Sequence[str], clients: int, bounds: Bounds, left: int
) -> tuple[Step, int]:
    tally, sent, begun = _Tally(), 0, time.monotonic()
    counted_from = begun + bounds.warm_up_seconds
    until = counted_from + bounds.seconds

    async def client() -> None:
        nonlocal sent
        while (asked := time.monotonic()) < until and sent < left:
            sent += 1
            status = await _speak(session, url, texts[sent % len(texts)])
            now = time.monotonic()
            if counted_from <= now <= until:
                _count(tally, status, now - asked)
            if status != 200:
                await asyncio.sleep(PAUSE_SECONDS)

    await asyncio.gather(*(client() for _ in range(clients)))
    measured = max(0.001, min(time.monotonic(), until) - counted_from)
    return _step(clients, tally, measured), sent


def _count(tally: _Tally, status: int | None, seconds: float) -> None:
    if status == 200:
        tally.latencies.append(seconds)
    elif status == 429:
        tally.refused += 1
    else:
        tally.failed += 1


def _step(clients: int, tally: _Tally, seconds: float) -> Step:
    found = sorted(tally.latencies)
    mean = sum(found) / len(found) if found else 0.0
    p99 = found[min(len(found) - 1, int(0.99 * len(found)))] if found else 0.0
    return Step(clients, len(found), tally.refused, tally.failed, seconds, mean, p99)


async def _speak(session: aiohttp.ClientSession, url: str, text: str) -> int | None:
    """The status of a whole answer; None when there was none."""
    try:
        async with session.post(url, json={"text": text}, allow_redirects=False) as response:
            size = 0
            async for part in response.content.iter_any():
                size += len(part)
                if size > MOST_BYTES:
                    return None
            return response.status
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None
