"""What is served at /, and what it may do; tests/page runs it in a browser. And GET /v1/status, which it shows."""

import asyncio
import re

from chattts_server.api.page.assets import ASSETS, PATHS
from tests.server.harness import speech, until


async def test_the_page_comes_with_a_policy_that_lets_nothing_else_in(serve):
    async with serve() as running:
        for path in sorted(PATHS):
            answer = await running.client.get(path)
            assert answer.status_code == 200, path
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "http" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            again = await running.client.get(path, headers={"if-none-match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        assert (await running.client.get("/")).headers["content-type"] == "text/html; charset=utf-8"
        for path in ("/page/nothing.js", "/page/__init__.py", "/page/..%2f__init__.py", "/page/%2e%2e/app.py"):
            assert (await running.client.get(path)).status_code == 404, path


def test_the_files_name_nobody_elses_server_but_one_link():
    names = {"index.html", "style.css", "app.js", "api.js", "sound.js", "worklet.js", "pictures.js", "status.js"}
    assert names <= set(ASSETS)
    for name, asset in ASSETS.items():
        addresses = set(re.findall(r"https?://[^\s\"']+", asset.body.decode()))
        assert addresses <= {"https://github.com/2noise/ChatTTS", "http://www.w3.org/2000/svg"}, name
        assert b"innerHTML" not in asset.body, name  # what a server says is never markup


async def test_the_status_says_what_is_going_on(serve):
    async with serve("--step-seconds", "0.01", "--rows", "2") as running:

        async def status():
            return (await running.client.get("/v1/status")).json()

        calm = await status()
        assert calm["state"] == "ready"
        assert calm["rows"] == {"busy": 0, "of": 2, "waiting": 0}
        assert (calm["requests"], calm["queued_audio_seconds"], calm["voices_kept_in"]) == (0, 0, "none")
        assert {"pcm", "wav", "mp3"} <= set(calm["formats"])
        assert calm["docs"] is True
        going = [asyncio.create_task(speech(running, response_format="wav", max_seconds=2)) for _ in range(3)]
        await until(lambda: running.server.synthesis.admission.inflight == 3)
        busy = await status()
        assert (busy["rows"], busy["requests"]) == ({"busy": 2, "of": 2, "waiting": 1}, 3)
        assert busy["queued_audio_seconds"] > 1
        await asyncio.gather(*going)
        assert (await status())["rows"] == calm["rows"]


async def test_the_status_while_there_is_no_engine(serve):
    async with serve(wait_ready=False) as running:
        answer = (await running.client.get("/v1/status")).json()
        assert (answer["state"], answer["rows"]["of"], answer["device"]) == ("starting", None, None)
