"""Fixtures: a hollow and a real checkpoint, and servers whose engine is fake_engine.py."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from chattts_server.engine.checkpoint import FILES, write_digests
from chattts_server.engine.vocabulary import write_tokenizer
from chattts_server.serve import SpeechServer
from chattts_server.text.tokens import PromptTokenizer
from chattts_server.tracing import Traces
from tests.server.harness import Running, fake_command, settings_of

HERE = Path(__file__).parent


@pytest.fixture(scope="session", autouse=True)
def _children_find_the_package() -> Iterator[None]:
    """pytest's pythonpath is not the children's."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1] / "server"), str(HERE.parents[1])])
    yield
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="session")
def hollow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint for the fake engine: a real tokenizer, everything else empty."""
    folder = tmp_path_factory.mktemp("hollow")
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    write_tokenizer(folder / "asset" / "tokenizer")
    write_digests(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real random checkpoint, with weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other people's packages say while they are imported
        from chattts_server.engine.random_checkpoint import make_checkpoint
    folder = tmp_path_factory.mktemp("tiny")
    make_checkpoint(folder, "tiny", seed=7)
    return folder


@pytest.fixture(scope="session")
def chat(tiny: Path) -> Any:
    """ChatTTS's own Chat on `tiny`: the reference."""
    import torch

    return chat_on(tiny, torch.device("cpu"))


def chat_on(folder: Path, device: Any) -> Any:
    from chattts_server.engine.native import load_chat

    return load_chat(folder, device)


@pytest.fixture(scope="session")
def prompt(tiny: Path) -> Callable[[str], list[int]]:
    return PromptTokenizer(tiny).prompt


Serve = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture(scope="session")
def serve(hollow: Path) -> Serve:
    """`async with serve("--step-seconds", "0.01", max_queue_wait_milliseconds="500") as running:`"""

    @asynccontextmanager
    async def start(
        *flags: str, wait_ready: bool = True, watchdog: float = 30.0, traces: Traces | None = None, **changes: str
    ) -> AsyncIterator[Running]:
        server = SpeechServer(settings_of(hollow, **changes), fake_command(*flags, watchdog_seconds=watchdog), traces)
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
            assert not task.done(), task.exception()
        if wait_ready:
            async with asyncio.timeout(20):
                await server.synthesis.engine.ready.wait()
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                yield Running(server, client)
        finally:
            server.should_exit = True
            await task

    return start
