"""A real Chromium for each test, with a profile of its own; servers as in tests/server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright

from dev.browser import ARGUMENTS, chromium
from tests.server.conftest import _children_find_the_package, hollow, serve  # noqa: F401

MICROPHONE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="session")
def browser_path() -> str:
    return chromium()


@pytest.fixture
async def page(browser_path: str, tmp_path: Path) -> AsyncIterator[Page]:
    """Fails the test when the page says anything on the console, or asks anybody else than its server."""
    said, asked = [], set()
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=browser_path, args=[*ARGUMENTS, *MICROPHONE], headless=True,
            viewport={"width": 1280, "height": 900},
        )  # fmt: skip
        context.set_default_timeout(15_000)
        page = context.pages[0]
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.add(request.url.split("/")[2]))
        yield page
        await context.close()
    # A browser says by itself that an answer was no 200: those are what some tests are about.
    assert [line for line in said if not line.startswith("Failed to load resource")] == []
    assert len([host for host in asked if host]) <= 1
