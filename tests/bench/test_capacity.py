"""The closed loop against a service of known capacity."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from bench.capacity import main, measure
from bench.client import Client, Speech
from tests.bench.fake_service import FakeService, serving

STEP_SECONDS = 0.3


async def capacity_of(service: FakeService, concurrencies: list[int]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    lines: list[dict[str, Any]] = []
    async with serving(service):
        client = Client(service.url, Speech(), timeout_seconds=2)
        found = await measure(
            client, ["a", "b"], concurrencies, step_seconds=STEP_SECONDS, warm_up_seconds=0.05, emit=lines.append
        )
        await client.aclose()
    return found, lines


async def test_it_finds_the_rate_at_which_the_service_is_full() -> None:
    """Four rows of 50 ms are at most 80 a second, however many clients wait."""
    found, lines = await capacity_of(FakeService(delay=0.05, rows=4), [2, 8, 16, 32, 64])
    assert 50 < found["rps"] < 95
    assert found["saturated"]
    assert lines[0]["rps"] < 0.8 * found["rps"]
    assert len(lines) < 5  # stops once more clients no longer help


async def test_a_service_that_was_never_full_says_so() -> None:
    found, _ = await capacity_of(FakeService(delay=0.05), [1, 3])
    assert not found["saturated"]
    assert found["concurrency"] == 3


async def test_refusals_are_not_capacity() -> None:
    async def refuse_half(service: FakeService, request: web.Request, number: int) -> web.Response | None:
        return web.json_response({}, status=429, headers={"Retry-After": "0"}) if number % 2 else None

    found, lines = await capacity_of(FakeService(delay=0.05, fault=refuse_half), [2])
    assert lines[0]["rejected_429"] > 0
    assert found["rps"] == pytest.approx(lines[0]["ok"] / STEP_SECONDS, rel=0.01)


def test_no_answer_at_all_is_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--url", "http://127.0.0.1:1", "--concurrency", "1", "--step-seconds", "0.1", "--warm-up-seconds", "0"]
    assert main(arguments) == 1
    assert '"connect"' in capsys.readouterr().out


@pytest.mark.parametrize("concurrency", ["0", "8,4", "4,4", "2000"])
def test_a_ramp_must_rise(concurrency: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--url", "http://127.0.0.1:1", "--concurrency", concurrency])
    assert "must be rising numbers" in capsys.readouterr().err
