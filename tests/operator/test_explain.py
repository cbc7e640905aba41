"""`chattts-operator explain`: the samples of the page, every reason, and calibrate's way over HTTP."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from chattts_operator.autoscaling import policy as policy_module
from chattts_operator.autoscaling.closed_loop import Bounds, UrlError, checked, measure
from chattts_operator.autoscaling.explain import REASONS, explain
from chattts_operator.spec import OperatorDefaults, parse
from dev.explain_samples import PAGE, sample, section, situations
from tests.operator.fakes import tts_service

FOLDER = Path(policy_module.__file__).parent


def test_the_page_shows_what_explain_says_now() -> None:
    assert section() in PAGE.read_text()


def test_every_sample_says_why_and_what_would_change_it() -> None:
    assert len(situations()) == 8
    texts = [sample(situation) for situation in situations()]
    assert len({re.search(r"Why \((\w+)\)", text)[1] for text in texts}) >= 7  # type: ignore[index]
    for text in texts:
        assert "What would change it: " in text
        assert len(text.split()) < 250  # a minute of reading


def test_every_reason_that_decide_gives_is_known() -> None:
    source = "".join((FOLDER / name).read_text() for name in ("policy.py", "step.py", "demand.py"))
    given = set(re.findall(r'"([A-Z][a-z]+(?:[A-Z][a-z]+)*|QPS|SLOBreach)"', source)) - {"StepLimit"}
    assert given >= {"ScaleIn", "QPS", "SLOBreach", "Held", "Probing"}
    assert given <= set(REASONS)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"managementPolicy": "Paused", "autoscaling": {"mode": "Operator"}}, "managementPolicy is Paused"),
        ({"autoscaling": {"mode": "KEDA"}}, "autoscaling.mode is KEDA"),
        ({"autoscaling": {"mode": "Operator"}}, "Nothing was decided yet"),
    ],
)
def test_without_a_decision_it_says_so(spec: dict[str, Any], words: str) -> None:
    body = tts_service(**spec)
    assert words in explain(parse(body, OperatorDefaults(has_prometheus=True)), body, 0.0)


# --- calibrate over HTTP ---


class Server:
    """Answers as many at a time as it has places, refuses beyond a bound."""

    def __init__(self) -> None:
        self.busy, self.most, self.asked, self.bound = 0, 0, 0, 1000

    async def speak(self, request: web.Request) -> web.Response:
        assert (await request.json())["text"] == "hello"
        self.asked += 1
        if self.busy >= self.bound:
            return web.Response(status=429)
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            return web.Response(body=b"RIFF")
        finally:
            self.busy -= 1


@pytest_asyncio.fixture
async def server() -> AsyncIterator[tuple[Server, str]]:
    server, app = Server(), web.Application()
    app.router.add_post("/tts", server.speak)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    yield server, f"http://127.0.0.1:{port}"
    await runner.cleanup()


async def test_a_closed_loop_is_bounded_in_requests(server: tuple[Server, str]) -> None:
    speaker, url = server
    steps = await measure(url, ["hello"], Bounds(clients=(1, 2), seconds=5.0, warm_up_seconds=0.0, requests=40))
    assert speaker.asked == 40
    assert steps[0].answered == 40
    assert (steps[0].refused, steps[0].failed) == (0, 0)


async def test_a_closed_loop_ends_where_it_is_refused(server: tuple[Server, str]) -> None:
    speaker, url = server
    speaker.bound = 0
    steps = await measure(url, ["hello"], Bounds(clients=(1, 2, 4), seconds=0.2, warm_up_seconds=0.0))
    assert [(step.clients, step.answered) for step in steps] == [(1, 0)]
    assert steps[0].refused == 1


async def test_nobody_there_is_failed_and_no_answer() -> None:
    bounds = Bounds(clients=(1, 2), seconds=0.1, warm_up_seconds=0.0)
    steps = await measure("http://127.0.0.1:9", ["hello"], bounds)
    assert (len(steps), steps[0].answered, steps[0].failed) == (1, 0, 1)


@pytest.mark.parametrize("url", ["https://x", "http://", "http://user@host", "http://host/?a=1", "file:///etc"])
def test_load_goes_to_plain_addresses_only(url: str) -> None:
    with pytest.raises(UrlError, match="http://host"):
        checked(url)
