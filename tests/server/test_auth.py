"""API keys (S6): who has none gets nothing, takes nothing, and is told so in OpenAI's words."""

import asyncio
import json

import openai
import pytest
import uvicorn
import websockets

from chattts_server.api.auth import Authentication, BadKeys, KeyRing, read_keys
from chattts_server.app import OPEN_PATHS
from chattts_server.errors import CannotStart
from tests.server.harness import code_of, speech
from tests.server.test_api import parsed

ANNA, BORIS, NEW = "anna-0123456789abcdef", "boris-0123456789abcdef", "new-0123456789abcdefgh"


def bearer(key):
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def secret(tmp_path):
    """Laid out as the kubelet mounts a Secret."""
    mount = tmp_path / "keys"
    mount.mkdir()
    put_secret(mount, 1, {"anna": ANNA, "boris": BORIS + "\n"})
    return mount


def put_secret(mount, revision, keys):
    folder = mount / f"..{revision}"
    folder.mkdir()
    for name, key in keys.items():
        (folder / name).write_text(key)
    (mount / "..data_tmp").symlink_to(folder.name)
    (mount / "..data_tmp").replace(mount / "..data")
    for link in mount.iterdir():
        if not link.name.startswith("..") and link.name not in keys:
            link.unlink()
    for name in keys:
        if not (mount / name).is_symlink():
            (mount / name).symlink_to(f"..data/{name}")


class Time:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_secrets_mount_and_a_file_say_the_same(secret, tmp_path):
    (tmp_path / "file").write_text(f"# who calls\nanna: {ANNA}\n\n  boris:{BORIS}  \n")
    assert read_keys(secret) == read_keys(tmp_path / "file") == {"anna": ANNA, "boris": BORIS}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there is no key"),
        ("# nothing\n", "there is no key"),
        ("anna", "anna: a key is 16"),
        ("anna: short", "anna: a key is 16"),
        (f"anna: {ANNA} x", "anna: a key is 16"),
        (f"anna: {ANNA}ü", "anna: a key is 16"),
        (f"an na: {ANNA}", "the name of key number 1"),
        (ANNA, "the name of key number 1|a key is 16"),
        (f"anna: {ANNA}\nanna: {BORIS}", "there already"),
        (f"anna: {ANNA}\nboris: {ANNA}", "there already"),
    ],
)
def test_a_bad_file_stops_the_start_and_shows_no_key(tmp_path, text, words):
    (tmp_path / "keys").write_text(text)
    with pytest.raises(CannotStart, match=words) as caught:
        KeyRing(tmp_path / "keys")
    assert "0123456789" not in str(caught.value).replace(ANNA, "") or text == ANNA
    with pytest.raises(CannotStart):
        KeyRing(tmp_path / "nowhere")


def test_keys_are_kept_as_hashes_only(secret):
    ring = KeyRing(secret)
    assert ANNA not in repr(vars(ring))
    assert ANNA.encode() not in repr(vars(ring)).encode()
    assert (ring.name_of(ANNA), ring.name_of(BORIS), ring.name_of(ANNA + "x"), ring.name_of("")) == (
        "anna", "boris", None, None,
    )  # fmt: skip


def test_every_comparison_is_hmacs_and_none_is_left_out(secret, monkeypatch):
    import hmac

    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or real(a, b))
    KeyRing(secret).name_of(ANNA)
    assert compared == [(32, 32)] * 2  # the first one matched, and the second was compared all the same


def test_a_rotated_secret_is_read_without_a_restart(secret):
    clock = Time()
    ring = KeyRing(secret, clock)
    put_secret(secret, 2, {"anna": NEW, "carol": BORIS})
    assert ring.name_of(ANNA) == "anna"  # within the second
    clock.now = 1.0
    assert [ring.name_of(key) for key in (ANNA, NEW, BORIS)] == [None, "anna", "carol"]


def test_a_change_that_cannot_be_read_changes_nothing_until_it_can(secret, caplog):
    clock = Time()
    ring = KeyRing(secret, clock)
    for revision, keys in ((2, {"anna": "short"}), (3, {"anna": NEW})):
        put_secret(secret, revision, keys)
        for _ in range(3):
            clock.now += 1.0
            ring.name_of(ANNA)
        if revision == 2:
            assert (ring.name_of(ANNA), ring.name_of(BORIS)) == ("anna", "boris")
    assert (ring.name_of(ANNA), ring.name_of(NEW)) == (None, "anna")
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "the API keys cannot be read; the known ones stay"
    ]
    put_secret(secret, 4, {})
    clock.now += 1.0
    assert ring.name_of(NEW) is None  # the last key was taken away


def test_the_file_may_be_swapped_by_a_link_of_its_own(tmp_path):
    clock = Time()
    (tmp_path / "a").write_text(f"anna: {ANNA}")
    (tmp_path / "b").write_text(f"anna: {NEW}")
    (tmp_path / "keys").symlink_to("a")
    ring = KeyRing(tmp_path / "keys", clock)
    (tmp_path / "tmp").symlink_to("b")
    (tmp_path / "tmp").replace(tmp_path / "keys")
    clock.now = 2.0
    assert (ring.name_of(ANNA), ring.name_of(NEW)) == (None, "anna")


def test_a_missing_file_is_no_empty_one(tmp_path):
    with pytest.raises(OSError):
        read_keys(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "bad name").write_text(ANNA)
    with pytest.raises(BadKeys):
        read_keys(tmp_path / "folder")


async def test_s6_without_a_key_nothing_but_probes_and_a_refused_one_takes_no_slot(serve, secret):
    async with serve(api_keys=str(secret)) as running:
        client, app = running.client, running.server.config.app
        for path in ("/livez", "/readyz", "/startupz", "/docs", "/openapi.json"):
            assert (await client.get(path)).status_code == 200, path
        assert "chattts_infer_total" in await running.metrics()
        closed = [route.path for route in _routes(app) if route.path not in OPEN_PATHS]
        assert {"/v1/audio/speech", "/tts", "/v1/models", "/v1/audio/voices"} <= set(closed)
        for path in [*closed, "/nothing", "/v1/audio/speech/"]:
            for method in ("GET", "POST", "DELETE"):
                answer = await client.request(method, path.replace("{", "").replace("}", ""))
                assert (answer.status_code, code_of(answer)) == (401, "missing_api_key"), path
        wrong = await speech(running, max_seconds=1)
        large = await client.post("/tts", content=b"x" * 70_000, headers=bearer("wrong-0123456789abcdef"))
        assert (large.status_code, code_of(large)) == (401, "invalid_api_key")  # before its body is looked at
        assert large.headers["www-authenticate"] == "Bearer"
        assert large.headers["x-request-id"] == large.json()["error"]["request_id"]
        assert large.json()["error"]["type"] == wrong.json()["error"]["type"] == "invalid_request_error"
        values = parsed(await running.metrics())
        assert values["chattts_infer_total", "accepted"] == values["chattts_infer_total", "invalid"] == 0
        assert values["chattts_inflight_requests",] == 0

        served = await client.post("/tts", json={"text": "好", "max_seconds": 0.2}, headers=bearer(ANNA))
        assert served.status_code == 200
        assert parsed(await running.metrics())["chattts_infer_total", "accepted"] == 1
        put_secret(secret, 2, {"anna": NEW})
        await asyncio.sleep(1.1)
        answers = [await client.get("/v1/models", headers=bearer(key)) for key in (ANNA, BORIS, NEW)]
        assert [answer.status_code for answer in answers] == [401, 401, 200]


def _routes(app):
    document = app.openapi()
    return [type("Route", (), {"path": path}) for path in document["paths"]]


async def test_openais_client_sees_an_authentication_error(serve, secret):
    async with serve(api_keys=str(secret)) as running:
        for key, good in ((ANNA, True), ("wrong-0123456789abcdef", False)):
            url = f"http://127.0.0.1:{running.port}/v1"
            async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
                if good:
                    assert [model.id async for model in client.models.list()] == ["chattts"]
                    continue
                with pytest.raises(openai.AuthenticationError) as caught:
                    await client.models.list()
                assert caught.value.code == "invalid_api_key"


async def test_without_keys_nobody_needs_one(serve):
    async with serve() as running:
        assert (await running.client.get("/v1/models")).status_code == 200
        assert (await running.client.get("/v1/models", headers=bearer("whatever"))).status_code == 200


async def test_the_documents_can_be_off(serve):
    async with serve(docs="off") as running:
        assert [(await running.client.get(path)).status_code for path in ("/docs", "/openapi.json", "/redoc")] == [
            404
        ] * 3
        assert (await running.client.get("/v1/models")).status_code == 200


# WebSockets, on an application of its own that says who called


async def _who_calls(scope, receive, send):
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": json.dumps(scope["state"]["caller"])})
    await send({"type": "websocket.close", "code": 1000})


@pytest.fixture
async def socket_url(secret):
    app = Authentication(_who_calls, KeyRing(secret), lambda path: path == "/open")
    config = uvicorn.Config(app, port=0, ws="websockets-sansio", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    yield f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await task


async def test_a_websocket_shows_its_key_in_a_header_or_as_browsers_do(socket_url):
    async with websockets.connect(socket_url, additional_headers=bearer(ANNA)) as socket:
        assert (json.loads(await socket.recv()), socket.subprotocol) == ("anna", None)
    protocols = ["realtime", f"openai-insecure-api-key.{BORIS}", "openai-beta.realtime-v1"]
    async with websockets.connect(socket_url, subprotocols=protocols) as socket:
        assert (json.loads(await socket.recv()), socket.subprotocol) == ("boris", "realtime")
    async with websockets.connect(f"{socket_url}/open") as socket:
        assert json.loads(await socket.recv()) == ""


async def test_a_websocket_without_a_good_key_is_a_401_and_never_opened(socket_url):
    for more in ({}, {"additional_headers": bearer("wrong-0123456789abcdef")},
                 {"subprotocols": ["openai-insecure-api-key.wrong-0123456789abcdef"]}):  # fmt: skip
        with pytest.raises(websockets.InvalidStatus) as caught:
            await websockets.connect(socket_url, **more)
        assert caught.value.response.status_code == 401
        assert json.loads(caught.value.response.body)["error"]["code"] in ("missing_api_key", "invalid_api_key")


async def test_s6_the_socket_for_speech_wants_a_key_too(serve, secret):
    async with serve(api_keys=str(secret)) as running:
        url = f"ws://127.0.0.1:{running.port}/v1/audio/speech/stream"
        with pytest.raises(websockets.InvalidStatus) as caught:
            await websockets.connect(url, additional_headers={"x-request-id": "mine-1"})
        refused = caught.value.response
        assert refused.status_code == 401
        assert refused.headers["x-request-id"] == json.loads(refused.body)["error"]["request_id"] == "mine-1"
        async with websockets.connect(url, additional_headers=bearer(ANNA)) as socket:
            assert socket.subprotocol is None
        async with websockets.connect(url, subprotocols=["realtime", f"openai-insecure-api-key.{ANNA}"]) as socket:
            assert socket.subprotocol == "realtime"


async def test_each_key_has_its_own_budget_whichever_way_it_comes(serve, secret):
    async with serve(api_keys=str(secret), key_audio_seconds_per_minute="20") as running:
        running.client.headers = bearer(ANNA)
        assert (await speech(running, max_seconds=19)).status_code == 200
        poor = await speech(running, max_seconds=10)
        assert (poor.status_code, code_of(poor)) == (429, "over_budget")
        url = f"ws://127.0.0.1:{running.port}/v1/audio/speech/stream"
        told = {}
        for key in (ANNA, BORIS):
            async with websockets.connect(url, additional_headers=bearer(key)) as socket:
                for said in ({"type": "start", "max_seconds": 10}, {"type": "text", "text": "你好。"}, {"type": "end"}):
                    await socket.send(json.dumps(said))
                told[key] = [json.loads(message) async for message in socket if isinstance(message, str)][1]
        assert (told[ANNA]["type"], told[ANNA]["error"]["code"]) == ("utterance.failed", "over_budget")
        assert told[BORIS]["type"] == "utterance.started"
        running.client.headers = bearer(BORIS)
        assert (await speech(running, max_seconds=9)).status_code == 200


async def test_a_server_that_cannot_answer_a_websocket_closes_it(secret):
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "websocket.connect"}

    app = Authentication(_who_calls, KeyRing(secret), lambda _: False)
    await app({"type": "websocket", "path": "/", "headers": [], "subprotocols": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "missing_api_key"}]
