"""refine, oral, laugh, pause, language: what a request says of them, and what the engine is then asked."""

import asyncio

import httpx
import pytest

from chattts_server.engine.nouns import samples_of
from chattts_server.text.tokens import PromptTokenizer, Prosody
from tests.server.harness import code_of, duration, speech, until

SEED = 7


@pytest.fixture(scope="module")
def tokenizer(hollow):
    return PromptTokenizer(hollow)


def prompts(log, stage):
    lines = [line for line in log.read_text().splitlines() if line.startswith(f"{stage} prompt ")]
    return [[int(token) for token in line.split()[2:]] for line in lines]


async def asked(serve, tmp_path, text="你好", **fields):
    """(answer, prompts of the text stage, prompts that were spoken)."""
    log = tmp_path / "log"
    async with serve("--log", str(log)) as running:
        answer = await speech(running, text, response_format="wav", max_seconds=0.5, seed=SEED, **fields)
    return answer, prompts(log, "text"), prompts(log, "code")


async def test_without_refine_the_text_is_spoken_as_it_is(serve, tmp_path, tokenizer):
    answer, text, code = await asked(serve, tmp_path)
    assert answer.status_code == 200
    assert (text, code) == ([], [tokenizer.prompt("你好")])


async def test_refined_text_is_spoken(serve, tmp_path, tokenizer):
    answer, text, code = await asked(serve, tmp_path, refine=True, oral=2, laugh=0, pause=4)
    assert answer.status_code == 200
    assert duration(answer.content, "wav") == pytest.approx(samples_of(24) / 24000)
    assert text == [tokenizer.refine_prompt("你好", Prosody(2, 0, 4))]
    (spoken,) = code
    # What the stage answered, in the frame of a prompt that is spoken.
    framed = tokenizer.refined_prompt(range(SEED, SEED + len(spoken) - 4))
    assert spoken == framed


async def test_refine_alone_leaves_the_marks_to_the_model(serve, tmp_path, tokenizer):
    _, text, _ = await asked(serve, tmp_path, refine=True)
    assert text == [tokenizer.refine_prompt("你好", Prosody())]


async def test_a_language_can_be_asked_for(serve, tmp_path, tokenizer):
    _, _, code = await asked(serve, tmp_path, "100", language="en")
    assert code == [tokenizer.prompt("one hundred")]


async def test_each_piece_of_a_long_text_is_refined_and_spoken_in_order(serve, tmp_path, tokenizer):
    log = tmp_path / "log"
    text = "".join(f"第{number}句话在这里说得很长很长很长。" for number in "一二三四五六七八")
    async with serve("--log", str(log)) as running:
        for delivery in ("audio", None):
            answer = await speech(
                running, text, response_format="pcm", stream_format=delivery, refine=True, max_seconds=4, seed=SEED
            )
            assert answer.status_code == 200
            assert len(answer.content) / 2 / 24000 == pytest.approx(4, abs=0.3)
    refined, spoken = prompts(log, "text"), prompts(log, "code")
    assert len(refined) == len(spoken) > 4
    half = len(refined) // 2
    assert refined[:half] == refined[half:]  # streamed or whole, the same pieces in the same order
    assert refined[0][:3] == tokenizer.refine_prompt("第一", Prosody())[:3]


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [("毒", 500, "engine_failed"), ("坏", 422, "unspeakable"), ("哑", 500, "nothing_refined")],
)
async def test_a_text_stage_that_fails_is_typed_and_leaves_no_place_taken(serve, text, status, code):
    async with serve() as running:
        failed = await speech(running, text, refine=True)
        assert (failed.status_code, code_of(failed)) == (status, code)
        assert running.server.synthesis.admission.inflight == 0
        assert running.server.synthesis.admission.audio_seconds == 0
        assert running.server.synthesis.queue._inside == 0
        assert (await speech(running, "好", refine=True, max_seconds=0.2)).status_code == 200


async def test_a_deadline_holds_in_the_text_stage(serve, tmp_path):
    log = tmp_path / "log"
    async with serve("--step-seconds", "0.05", "--log", str(log)) as running:
        late = await speech(running, "今天天气很好我们去公园", refine=True, max_seconds=0.1, deadline_ms=300)
        assert (late.status_code, code_of(late)) == (504, "deadline_exceeded")
        assert prompts(log, "code") == []
        in_time = await speech(running, "今天天气很好我们去公园", refine=True, max_seconds=0.1, deadline_ms=5000)
        assert in_time.status_code == 200
        assert len(prompts(log, "code")) == 1


async def test_a_client_that_leaves_ends_its_text_stage(serve, tmp_path):
    log = tmp_path / "log"
    async with serve("--step-seconds", "0.05", "--log", str(log)) as running:
        body = {"text": "今天天气很好我们去公园" * 3, "refine": True}
        with pytest.raises(httpx.ReadTimeout):
            await running.client.post("/tts", json=body, timeout=0.5)
        await until(lambda: running.server.synthesis.admission.inflight == 0)
        assert running.server.synthesis.queue._inside == 0
        assert (await speech(running, "好", refine=True, max_seconds=0.1)).status_code == 200
        assert len(prompts(log, "code")) == 1  # of the second request


async def test_the_text_stage_waits_for_its_turn_and_a_deadline_passes_there(serve, tmp_path):
    """One row at a time and three places: of four long texts one waits before the engine, and is not refined."""
    log = tmp_path / "log"
    async with serve("--step-seconds", "0.005", "--rows", "1", "--log", str(log)) as running:
        queue = running.server.synthesis.queue
        long = [asyncio.create_task(speech(running, refine=True, max_seconds=3, seed=SEED)) for _ in range(3)]
        await until(lambda: queue._inside == 3)
        late = await speech(running, refine=True, max_seconds=0.1, deadline_ms=200)
        assert (late.status_code, code_of(late)) == (504, "deadline_exceeded")
        assert {answer.status_code for answer in await asyncio.gather(*long)} == {200}
        assert len(prompts(log, "text")) == len(prompts(log, "code")) == 3
        assert (await speech(running, refine=True, max_seconds=0.1, deadline_ms=5000)).status_code == 200
        assert len(prompts(log, "text")) == len(prompts(log, "code")) == 4
        assert (queue._inside, queue.waiting) == (0, 0)


async def test_a_text_stage_that_waits_is_left_without_a_trace(serve, tmp_path):
    log = tmp_path / "log"
    async with serve("--step-seconds", "0.005", "--rows", "1", "--log", str(log)) as running:
        queue = running.server.synthesis.queue
        long = [asyncio.create_task(speech(running, refine=True, max_seconds=3, seed=SEED)) for _ in range(3)]
        await until(lambda: queue._inside == 3)
        leaver = asyncio.create_task(speech(running, refine=True))
        await until(lambda: queue.waiting == 1)
        leaver.cancel()
        await until(lambda: queue.waiting == 0)
        assert {answer.status_code for answer in await asyncio.gather(*long)} == {200}
        assert len(prompts(log, "text")) == 3


@pytest.mark.parametrize("field", ["oral", "laugh", "pause"])
async def test_marks_of_the_text_stage_need_it(serve, field):
    async with serve() as running:
        refused = await speech(running, **{field: 1})
        assert (refused.status_code, code_of(refused)) == (422, "invalid_value")
        assert f"{field}: needs refine" in refused.json()["error"]["message"]
        assert (await speech(running, refine=True, max_seconds=0.2, **{field: 1})).status_code == 200
        assert (await speech(running, refine=True, **{field: 10})).status_code == 422


def test_what_may_not_be_spoken_is_left_out_of_refined_text(tokenizer):
    def ids(text):
        return tokenizer._encode(text)

    answered = ids("[Stts][spk_emb]你[uv_break]好[laugh][break_3][Ptts][Ebreak]")
    assert tokenizer.refined_prompt(answered) == ids("[Stts][spk_emb][speed_5]你[uv_break]好[laugh][Ptts]")
    assert tokenizer.refined_prompt(ids("[uv_break][Ebreak]")) is None
    assert tokenizer.refined_prompt([]) is None
