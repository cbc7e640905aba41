"""Voices over HTTP: where they live, who may add one, and that nobody's voice becomes anybody else's (R7)."""

import asyncio
import base64
import time

import numpy as np
import openai
import pytest

from chattts_server.engine.nouns import Sampling
from chattts_server.voices.codec import decode, encode_clone
from chattts_server.voices.store import LOOK_SECONDS, Place, Voices
from tests.server.fake_engine import WIDTH
from tests.server.harness import code_of, speech, until
from tests.server.recordings import recording

PATH = "/v1/audio/voices"
FORM = {"transcript": "今天天气很好"}


async def sound(running, voice, text="你好", **fields):
    response = await speech(running, text, voice=voice, response_format="pcm", seed=7, max_seconds=0.5, **fields)
    assert response.status_code == 200, response.text
    return response.content


async def clone(running, data=None, **form):
    files = {"audio": ("me.wav", recording(2) if data is None else data, "audio/wav")}
    return await running.client.post(PATH, data=FORM | form, files=files)


async def names(running):
    data = (await running.client.get(PATH)).json()["data"]
    return [voice["id"] for voice in data if voice["stored"]]


@pytest.fixture
def claim(tmp_path):
    (tmp_path / "voices").mkdir()
    return tmp_path / "voices"


@pytest.fixture
def config_map(tmp_path):
    """Laid out as the kubelet does: keys are links into a folder that is swapped whole."""
    mount = tmp_path / "mount"
    mount.mkdir()
    put_config_map(mount, 1, {"anna": "seed:5", "broken": "hm", "default": "seed:9"})
    for key in ("anna", "broken", "default"):
        (mount / key).symlink_to(f"..data/{key}")
    return mount


def put_config_map(mount, revision, content):
    (mount / f"..{revision}").mkdir()
    for key, text in content.items():
        (mount / f"..{revision}" / key).write_text(text)
    (mount / "..data_tmp").symlink_to(f"..{revision}")
    (mount / "..data_tmp").replace(mount / "..data")


async def test_without_a_place_a_voice_is_a_string_that_works_everywhere(serve):
    async with serve() as running, serve() as other:
        made = await running.client.post(PATH, json={"seed": 5, "name": "anna"})
        assert made.status_code == 201
        voice = made.json()
        assert (voice["stored"], voice["seed"], voice["type"], voice["object"]) == (False, 5, "seed", "audio.voice")
        assert voice["id"] == voice["voice"]
        assert await sound(running, voice["id"]) == await sound(other, voice["id"]) == await sound(other, "seed:5")
        assert await sound(other, {"id": voice["id"]}) == await sound(other, "seed:5")  # OpenAI's other form
        assert await sound(other, "seed:6") != await sound(other, "seed:5")
        assert await names(running) == []
        assert code_of(await speech(running, voice="anna")) == "unknown_voice"
        assert code_of(await running.client.delete(f"{PATH}/anna")) == "voices_not_kept"
        drawn = [(await running.client.post(PATH, json={})).json()["voice"] for _ in range(2)]
        assert drawn[0] != drawn[1]


async def test_a_clone_is_a_string_with_what_it_says(serve):
    async with serve() as running:
        made = await clone(running)
        assert made.status_code == 201, made.text
        voice = made.json()
        assert (voice["type"], voice["stored"]) == ("audio_sample", False)
        speaker = decode(voice["voice"], WIDTH)
        assert speaker.transcript == FORM["transcript"]
        assert np.frombuffer(speaker.voice.codes, "<u2").tolist() == [48000 % 600] * 12  # the engine had all samples
        assert await sound(running, voice["id"]) != await sound(running, "default")


async def test_a_claim_is_shared_by_all_replicas_within_five_seconds(serve, claim):
    async with serve(voices=str(claim)) as one, serve(voices=str(claim)) as two:
        assert (await clone(one, name="anna")).status_code == 201
        expected = await sound(one, "anna")  # at once where it was made
        began = time.monotonic()
        await until(lambda: "anna" in two.server.config.app.state.voices.stored)
        assert await sound(two, "anna") == expected != await sound(two, "default")
        assert (await two.client.get(f"{PATH}/anna")).json()["voice"] == (claim / "anna").read_text().strip()
        assert time.monotonic() - began < 5
        assert (await one.client.post(PATH, json={"seed": 6, "name": "anna"})).status_code == 409
        assert code_of(await two.client.post(PATH, json={"seed": 6, "name": "anna"})) == "voice_exists"
        assert code_of(await two.client.post(PATH, json={"seed": 6, "name": "alloy"})) == "voice_exists"
        assert await sound(one, "anna") == expected

        assert (await two.client.delete(f"{PATH}/anna")).json() == {
            "id": "anna", "object": "audio.voice.deleted", "deleted": True,
        }  # fmt: skip
        assert code_of(await speech(two, voice="anna")) == "unknown_voice"
        began = time.monotonic()
        await until(lambda: "anna" not in one.server.config.app.state.voices.stored)
        assert time.monotonic() - began < 5
        assert code_of(await speech(one, voice="anna")) == "unknown_voice"
        assert [(await two.client.delete(f"{PATH}/{name}")).status_code for name in ("anna", "alloy")] == [404, 409]
        assert list(claim.iterdir()) == []  # no half files are left


async def test_two_who_store_the_same_name_at_once_do_not_both_succeed(serve, claim):
    async with serve(voices=str(claim)) as one, serve(voices=str(claim)) as two:
        answers = await asyncio.gather(
            *(
                server.client.post(PATH, json={"seed": seed, "name": "same"})
                for seed, server in enumerate([one, two] * 4)
            )
        )
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
        won = next(answer.json()["voice"] for answer in answers if answer.status_code == 201)
        assert (claim / "same").read_text().strip() == won
        assert [path.name for path in claim.iterdir()] == ["same"]


async def test_a_config_map_is_read_only_and_says_which(serve, config_map):
    async with serve(voices=str(config_map), voices_config_map="company-voices") as running:
        listed = {voice["id"]: voice for voice in (await running.client.get(PATH)).json()["data"]}
        assert await names(running) == ["anna", "broken", "default"]
        assert (listed["anna"]["problem"], listed["alloy"]["stored"]) == (None, False)
        assert "no voice string" in listed["broken"]["problem"]
        assert await sound(running, "anna") == await sound(running, "seed:5")
        assert await sound(running, "default") == await sound(running, "seed:9")  # the service's own default
        assert code_of(await speech(running, voice="broken")) == "bad_voice"
        for refused in (
            await running.client.post(PATH, json={"seed": 1, "name": "new"}),
            await clone(running, name="new"),
            await running.client.delete(f"{PATH}/anna"),
        ):
            assert (refused.status_code, code_of(refused)) == (409, "voices_read_only")
            assert "company-voices" in refused.json()["error"]["message"]
        # Without a name nothing is to be stored: the string for the ConfigMap is made all the same.
        assert (await clone(running)).json()["stored"] is False

        put_config_map(config_map, 2, {"anna": "seed:6"})
        voices = running.server.config.app.state.voices
        await until(lambda: voices.stored.keys() == {"anna"})
        assert await sound(running, "anna") == await sound(running, "seed:6")


async def test_a_folder_that_cannot_be_read_leaves_what_was_known(serve, claim):
    (claim / "anna").write_text("seed:5")
    async with serve(voices=str(claim)) as running:
        expected = await sound(running, "anna")
        away = claim.rename(claim.with_name("away"))
        await running.server.config.app.state.voices.look()
        assert await sound(running, "anna") == expected
        assert code_of(await running.client.post(PATH, json={"seed": 1, "name": "new"})) == "voice_not_stored"
        away.rename(claim)
        (claim / "anna").unlink()
        await asyncio.sleep(LOOK_SECONDS + 0.5)
        assert code_of(await speech(running, voice="anna")) == "unknown_voice"


OPENAI = {
    "alloy", "ash", "ballad", "coral", "echo", "fable", "nova", "onyx", "sage", "shimmer", "verse", "marin", "cedar",
}  # fmt: skip
STRING = encode_clone(bytes(8 * 5), "hi")


BAD = [
    ({"seed": -1}, "invalid_value"),
    ({"seed": 10**18}, "invalid_value"),
    ({"seed": 1, "voice": STRING}, "invalid_value"),
    ({"name": "../etc/passwd", "seed": 1}, "invalid_value"),
    ({"name": ".hidden", "seed": 1}, "invalid_value"),
    ({"name": "a" * 65, "seed": 1}, "invalid_value"),
    ({"name": "好", "seed": 1}, "invalid_value"),
    ({"voice": "anna"}, "unknown_voice"),
    ({"voice": "一" * 9000}, "invalid_value"),
    ([], "invalid_value"),
]


async def test_what_is_no_voice_is_refused(shared, subtests):
    for body, code in BAD:
        with subtests.test(body=str(body)[:40]):
            response = await shared.client.post(PATH, json=body)
            assert (response.status_code, code_of(response)) == (422, code)
    no_json = await shared.client.post(PATH, content=b"{")
    assert (no_json.status_code, code_of(no_json)) == (400, "malformed_json")
    assert (await shared.client.post(PATH, json={"voice": STRING})).json()["type"] == "audio_sample"


@pytest.fixture
async def shared(serve):
    async with serve() as running:
        yield running


async def test_what_is_no_recording_is_refused(shared):
    post = shared.client.post
    for code, param, answer in (
        ("bad_recording", "audio", await clone(shared, b"hello")),
        ("bad_recording", "audio", await clone(shared, recording(16))),
        ("invalid_value", "audio", await post(PATH, data=FORM, files={"other": ("x", b"x")})),
        ("invalid_value", "transcript", await clone(shared, transcript="")),
        ("invalid_value", "transcript", await clone(shared, transcript="😀")),
        ("invalid_value", "transcript", await clone(shared, transcript="好" * 301)),
        ("invalid_value", "name", await clone(shared, name="a/b")),
        ("malformed_form", None, await post(PATH, content=b"x", headers={"content-type": "multipart/form-data"})),
        ("malformed_form", None, await post(PATH, content=b"--b\r\n\r\n",
                                            headers={"content-type": "multipart/form-data; boundary=b"})),
    ):  # fmt: skip
        assert (answer.status_code, code_of(answer), answer.json()["error"]["param"]) == (422, code, param)
    large = await clone(shared, bytes(10 * 1024 * 1024 + 70_000))
    assert (large.status_code, code_of(large)) == (413, "body_too_large")
    no_form = await post(PATH, content=b'{"name": "' + b"x" * 70_000, headers={"content-type": "application/json"})
    assert (no_form.status_code, code_of(no_form)) == (413, "body_too_large")  # only recordings may be large
    assert (await clone(shared)).status_code == 201


async def test_who_leaves_in_the_middle_of_an_upload_leaves_nothing_behind(shared, caplog):
    for kind in ("multipart/form-data; boundary=b", "application/json"):
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: 1000\r\n\r\n--b"
        _, writer = await asyncio.open_connection("127.0.0.1", shared.port)
        writer.write(head.encode())
        await writer.drain()
        if kind.startswith("multipart"):
            await until(lambda: getattr(shared.server.config.app.state, "clones", 0) == 1)
        writer.close()
        await writer.wait_closed()
    await until(lambda: shared.server.config.app.state.clones == 0)
    assert (await clone(shared)).status_code == 201
    assert [record.message for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


async def test_the_third_recording_at_once_is_refused_before_it_is_read(shared):
    going = asyncio.Event()

    async def slow():
        yield b"--b\r\n"
        await going.wait()
        yield b"--"

    headers = {"content-type": "multipart/form-data; boundary=b"}
    app = shared.server.config.app
    slow_ones = [asyncio.create_task(shared.client.post(PATH, content=slow(), headers=headers)) for _ in range(2)]
    await until(lambda: getattr(app.state, "clones", 0) == 2)
    refused = await clone(shared)
    assert (refused.status_code, code_of(refused), refused.headers["retry-after"]) == (429, "voices_busy", "5")
    assert (await speech(shared, max_seconds=0.1)).status_code == 200  # speech has nothing to do with it
    going.set()
    await asyncio.gather(*slow_ones)
    assert (await clone(shared)).status_code == 201


async def test_every_name_of_openai_is_a_voice_of_its_own(shared):
    listed = [voice["id"] for voice in (await shared.client.get(PATH)).json()["data"]]
    assert set(listed) > OPENAI
    assert len({await sound(shared, name) for name in listed}) == len(listed)
    one = (await shared.client.get(f"{PATH}/alloy")).json()
    assert await sound(shared, one["voice"]) == await sound(shared, "alloy")
    unknown = await speech(shared, voice="Alloy")
    assert code_of(unknown) == "unknown_voice"
    assert "GET /v1/audio/voices" in unknown.json()["error"]["message"]
    assert (await shared.client.get(f"{PATH}/nobody")).status_code == 404


async def test_openais_own_client_makes_and_deletes_a_voice(serve, claim):
    async with serve(voices=str(claim)) as running:
        async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{running.port}/v1", api_key="none") as client:
            voice = await client.audio.voices.create(
                name="anna", audio_sample=("me.webm", recording(2, "webm")), consent="ours", extra_body=FORM
            )
            assert (voice.id, voice.type, voice.object) == ("anna", "audio_sample", "audio.voice")
            spoken = await client.audio.speech.create(
                model="tts-1", input="好", voice={"id": voice.id}, extra_body={"max_seconds": 0.2}
            )
            assert spoken.content
            assert (await client.audio.voices.delete("anna")).deleted
            with pytest.raises(openai.UnprocessableEntityError, match="unknown voice"):
                await client.audio.speech.create(model="tts-1", input="好", voice="anna")


# R7: no cross-request state

CLONE = "clone:" + base64.urlsafe_b64encode("你好".encode()).decode().rstrip("=") + ":" + STRING.rpartition(":")[2]
LONG = "今天天气很好。" * 12  # several rows


def test_r07_what_requests_share_cannot_be_changed(tmp_path):
    speaker = decode(STRING, WIDTH)
    for shared, field in ((speaker, "transcript"), (speaker.voice, "codes"), (Sampling(), "seed")):
        with pytest.raises(AttributeError):
            setattr(shared, field, None)
    with pytest.raises(TypeError):
        Voices(Place()).stored["anna"] = speaker


async def test_r07_what_others_ask_for_never_changes_what_i_hear(serve, claim):
    """B asks for defaults; before, beside and after it all kinds of A ask for everything else."""
    async with serve("--step-seconds", "0.0005", voices=str(claim)) as running:

        async def b(text="你好"):
            body = {"model": "x", "input": text, "response_format": "pcm", "seed": 3, "max_seconds": 1}
            return (await running.client.post("/v1/audio/speech", json=body)).content

        def a(number):
            fields = {"voice": ["alloy", "seed:99", CLONE, "nobody"][number % 4], "temperature": 1.5, "top_k": 3}
            fields |= {"seed": number, "response_format": "wav", "stream_format": "audio"}
            return speech(running, LONG if number % 2 else "好", max_seconds=1 + number, **fields)

        alone, alone_long = await b(), await b(LONG)
        assert alone != alone_long
        mixed = await asyncio.gather(*(b(LONG) if n % 4 == 3 else b() if n % 4 == 1 else a(n // 2) for n in range(24)))
        assert {mixed[n] for n in range(24) if n % 4 == 1} == {alone}
        assert {mixed[n] for n in range(24) if n % 4 == 3} == {alone_long}
        await running.client.post(PATH, json={"seed": 50, "name": "anna"})
        assert await sound(running, "anna") != await sound(running, "default")
        assert (await b(), await b(LONG)) == (alone, alone_long)
        # The same with what A changes about itself: there it shows.
        changed = await speech(running, response_format="pcm", seed=3, max_seconds=1, voice="alloy")
        assert changed.content != alone
