"""The only door to Prometheus: one query per signal for all services. Decides nothing; what is unsure is None.

An answer counts only if it is whole: a warning, a partial answer, a redirect, two series for one service, NaN, or an
answer that is too large or too late is no answer.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp

from .. import api
from . import rules
from .rules import Promise
from .signals import Metrics

TIMEOUT_SECONDS = 10.0
MOST_BYTES = 32 * 2**20

Series = dict[tuple[api.Key, str], float | None]  # by service and promise label; None: more than one series


class PrometheusError(Exception):
    """No usable answer; the text says why."""


class Prometheus:
    def __init__(self, url: str) -> None:
        self._url = url
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def read(self, promises: Mapping[api.Key, Promise]) -> dict[api.Key, Metrics]:
        """All signals of all services, or PrometheusError: half of an answer is none."""
        expressions = rules.queries(promises.values())
        answers = await asyncio.gather(*(self.query(expression) for expression in expressions.values()))
        signals = dict(zip(expressions, answers, strict=True))
        return {key: metrics_of(key, promise, signals) for key, promise in promises.items()}

    async def query(self, expression: str) -> Series:
        return series_of(*await self._ask("query", {"query": expression}))

    async def history(self, expression: str, start: float, end: float, step: float) -> list[tuple[float, float]]:
        """One series over time; empty where there is none. Times are seconds since the epoch."""
        asked = {"query": expression, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
        return history_of(*await self._ask("query_range", asked))

    async def _ask(self, what: str, data: Mapping[str, str]) -> tuple[int, bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS))
        try:
            async with self._session.post(f"{self._url}/api/v1/{what}", data=data, allow_redirects=False) as response:
                body = await self._read(response)
                status = response.status
        except TimeoutError as error:
            raise PrometheusError(f"Prometheus did not answer within {TIMEOUT_SECONDS:g} s") from error
        except aiohttp.ClientError as error:
            raise PrometheusError(f"Prometheus cannot be reached: {error}") from error
        return status, body

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in response.content.iter_chunked(2**16):
            size += len(part)
            if size > MOST_BYTES:
                raise PrometheusError(f"the answer of Prometheus has more than {MOST_BYTES} bytes")
            parts.append(part)
        return b"".join(parts)


def series_of(status: int, body: bytes) -> Series:
    """The instant vector of an answer by service. Strict: anything odd is PrometheusError."""
    result = _result(status, body, "vector")
    try:
        return _by_service(result)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(status) from error


def history_of(status: int, body: bytes) -> list[tuple[float, float]]:
    """The one series of a range answer, without what is not a number; as strict."""
    result = _result(status, body, "matrix")
    try:
        if len(result) > 1:
            raise PrometheusError(f"Prometheus answered with {len(result)} series where one was asked for")
        values = [(float(time), float(value)) for item in result for time, value in item["values"]]
        return [(time, value) for time, value in values if math.isfinite(value)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(status) from error


def _result(status: int, body: bytes, kind: str) -> list[Any]:
    try:
        answer = json.loads(body)
        data = answer.get("data") or {}
        if status != 200 or answer.get("status") != "success" or data.get("resultType") != kind:
            raise PrometheusError(f"Prometheus answered {status}: {str(answer.get('error') or answer)[:200]}")
        if answer.get("warnings"):
            raise PrometheusError(f"Prometheus answered with warnings: {str(answer['warnings'])[:200]}")
        result: list[Any] = data["result"]
        return result
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(status) from error


def _unreadable(status: int) -> PrometheusError:
    return PrometheusError(f"Prometheus answered {status} with something unreadable")


def _by_service(result: Iterable[Mapping[str, Any]]) -> Series:
    series: Series = {}
    for item in result:
        labels = item["metric"]
        if "namespace" not in labels or "tts_service" not in labels:
            continue
        key = api.Key(labels["namespace"], labels["tts_service"]), labels.get(rules.PROMISE_LABEL, "")
        series[key] = None if key in series else float(item["value"][1])
    return series


def metrics_of(key: api.Key, promise: Promise, signals: Mapping[str, Series]) -> Metrics:
    """The recorded series if there is one, else the direct answer for exactly this promise."""

    def value(name: str) -> float | None:
        series = signals[name]
        for label in ("", str(promise)):
            if (key, label) in series:
                found = series[key, label]
                return found if found is not None and math.isfinite(found) else None
        return None

    breach, reporting = value(rules.BREACH), value(rules.REPORTING)
    return Metrics(
        offered=value(rules.OFFERED),
        offered_5m=value(rules.OFFERED_5M),
        offered_30s=value(rules.OFFERED_30S),
        completed=value(rules.COMPLETED),
        refused=value(rules.REFUSED),
        p99=value(rules.P99),
        bad_ratio=value(rules.BAD_RATIO),
        breach={0.0: False, 1.0: True}.get(breach) if breach is not None else None,
        inflight=value(rules.INFLIGHT),
        age=value(rules.AGE),
        reporting=None if reporting is None else int(reporting),
    )
