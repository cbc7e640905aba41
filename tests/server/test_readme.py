"""Every example of README's "Use it", as it stands there, against a server on loopback; and the example client."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.server.harness import duration
from tests.server.npm import with_modules
from tests.server.sounds import decoded

ROOT = Path(__file__).parents[2]
SECTION = re.search(r"^## Use it\n(.*?)^## ", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)[1]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
ADDRESS = "127.0.0.1:8000"
COMMANDS = {"sh": ("example.sh", "sh"), "python": ("example.py", sys.executable), "js": ("example.mjs", "node")}
# What each block leaves behind, in the order of the page: name, ffmpeg's format, seconds.
MADE = [("curl.mp3", "mp3", 2.8), ("python.ogg", "ogg", 2.25), ("js.wav", "wav", 0.5), ("websocket.pcm", None, 3.6)]


async def ran(*command, cwd, **pipes):
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=os.environ | {"NO_PROXY": "127.0.0.1"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, **pipes,
    )  # fmt: skip
    return process


@pytest.mark.parametrize(("block", "made"), list(zip(BLOCKS, MADE, strict=True)), ids=[name for name, _, _ in MADE])
async def test_an_example_of_the_readme_does_what_it_says(serve, tmp_path, block, made):
    (language, text), (name, kind, seconds) = block, made
    assert text.count(ADDRESS) == 1
    script, program = COMMANDS[language]
    async with serve() as running:
        (tmp_path / script).write_text(text.replace(ADDRESS, f"127.0.0.1:{running.port}"))
        if language == "js":
            with_modules(tmp_path)
        process = await ran(program, script, cwd=tmp_path)
        _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    data = (tmp_path / name).read_bytes()
    length = len(decoded(data, "pcm", 24000)) / 24000 if kind is None else duration(data, kind)
    assert length == pytest.approx(seconds, rel=0.2)


async def test_the_example_client_plays_while_it_receives(serve, tmp_path):
    """It is given its second line only when the sound of the first one is here."""
    client = ROOT / "docs/examples/speak_as_it_comes.py"
    async with serve() as running:
        url = f"ws://127.0.0.1:{running.port}/v1/audio/speech/stream"
        process = await ran(
            sys.executable, str(client), "--url", url, cwd=tmp_path, stdin=asyncio.subprocess.PIPE
        )  # fmt: skip
        async with asyncio.timeout(20):
            process.stdin.write("今天天气很好。\n".encode())
            first = await process.stdout.readexactly(40_000)
            process.stdin.write("我们出去走走。\n".encode())
            process.stdin.close()
            rest, errors = await process.communicate()
        assert (process.returncode, errors) == (0, b"")
        assert (len(first) + len(rest)) / 48000 == pytest.approx(3.7, rel=0.2)
        process = await ran(sys.executable, str(client), "--url", url, "--voice", "nobody", cwd=tmp_path,
                            stdin=asyncio.subprocess.PIPE)  # fmt: skip
        heard, errors = await process.communicate("好。\n".encode())
    assert (process.returncode, heard) == (1, b"")
    assert b"unknown voice" in errors
