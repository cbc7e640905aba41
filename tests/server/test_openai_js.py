"""The official npm client, unchanged, against our server: tests/server/openai_js/client.test.mjs says what is asked."""

import asyncio
import os
import re
import shutil

import pytest

from tests.server.npm import HERE, with_modules

BUSY = ("--step-seconds", "0.01", "--rows", "1", "--throughput", "2")


@pytest.mark.engine
async def test_the_npm_client(serve, tmp_path):
    script = "client.test.mjs"
    shutil.copy(HERE / script, with_modules(tmp_path))
    async with serve() as fast, serve(*BUSY, max_queue_wait_milliseconds="1000") as busy:
        urls = {"FAST": f"http://127.0.0.1:{fast.port}", "BUSY": f"http://127.0.0.1:{busy.port}"}
        node = await asyncio.create_subprocess_exec(
            "node", "--test", "--test-force-exit", "--test-reporter", "tap", script,
            cwd=tmp_path, env={**os.environ, **urls}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        told = (await node.communicate())[0].decode()
    assert node.returncode == 0, told
    asked = (HERE / script).read_text()
    assert int(re.search(r"^# pass (\d+)$", told, re.MULTILINE)[1]) == 17 >= asked.count("test(")
    assert "# fail 0" in told
    assert "# skipped 0" in told
