"""fetch against a small hub on loopback: pinned, checked, all or none, and it goes on where it stopped."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from chattts_server import fetch as fetching
from chattts_server.engine.checkpoint import FILES, digest_key
from chattts_server.errors import CannotStart
from chattts_server.fetch import FetchError, fetch, is_complete

REVISION = "0123456789abcdef0123456789abcdef01234567"
CONTENT = {name: f"content of {name} ".encode() * 50 for name in FILES}


class Hub(BaseHTTPRequestHandler):
    """Answers /OWNER/NAME/resolve/REVISION/FILE as the hub does."""

    requests: list[str] = []  # noqa: RUF012
    missing: set[str] = set()  # noqa: RUF012

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        _, _, tail = self.path.partition(f"/resolve/{REVISION}/")
        data = None if tail in self.missing else CONTENT.get(tail)
        if body:
            self.requests.append(tail)
        self.send_response(404 if data is None else 200)
        if data is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", str(len(data or b"")))
        self.send_header("ETag", f'"{hashlib.sha256(data or b"").hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if body and data:
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    Hub.requests, Hub.missing = [], set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def say():
    lines = []
    return lines.append


def test_nine_files_come_and_the_folder_is_complete(hub, tmp_path, say):
    fetch("someone/model", REVISION, tmp_path, hub, say)
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == CONTENT
    digests = json.loads((tmp_path / "sha256_map.json").read_text())
    assert digests == {digest_key(name): hashlib.sha256(CONTENT[name]).hexdigest() for name in FILES}
    assert is_complete(tmp_path, "someone/model", REVISION)
    assert not list(tmp_path.glob(".fetch-*"))
    assert len(say.__self__) == 10  # a line per file and one at the end


def test_a_complete_folder_is_left_alone(hub, tmp_path, say):
    fetch("someone/model", REVISION, tmp_path, hub, say)
    Hub.requests.clear()
    fetch("someone/model", REVISION, tmp_path, hub, say)
    assert Hub.requests == []
    (tmp_path / FILES[0]).write_bytes(b"changed")  # the same with a changed file: fetched again
    fetch("someone/model", REVISION, tmp_path, hub, say)
    assert len(Hub.requests) == 9
    assert (tmp_path / FILES[0]).read_bytes() == CONTENT[FILES[0]]


def test_a_broken_fetch_leaves_nothing_and_goes_on(hub, tmp_path, say):
    Hub.missing = {FILES[6]}
    with pytest.raises(FetchError, match=r"DVAE\.safetensors") as caught:
        fetch("someone/model", REVISION, tmp_path, hub, say)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "asset").exists()
    assert not is_complete(tmp_path, "someone/model", REVISION)
    Hub.missing = set()
    Hub.requests.clear()
    fetch("someone/model", REVISION, tmp_path, hub, say)
    assert Hub.requests == list(FILES[6:])
    assert is_complete(tmp_path, "someone/model", REVISION)


def test_the_released_repository_must_have_the_pinned_digests(hub, tmp_path, say, monkeypatch):
    with pytest.raises(FetchError, match="ChatTTS pins"):
        fetch("2Noise/ChatTTS", REVISION, tmp_path, hub, say)
    assert not (tmp_path / "asset").exists()
    pinned = {digest_key(name): hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}
    monkeypatch.setattr(fetching, "released_digests", lambda: pinned)
    fetch("2Noise/ChatTTS", REVISION, tmp_path, hub, say)
    assert is_complete(tmp_path, "2Noise/ChatTTS", REVISION)


@pytest.mark.parametrize(
    ("repository", "revision"), [("ChatTTS", REVISION), ("a/b/c", REVISION), ("a/b", "main"), ("a/b", REVISION[:12])]
)
def test_what_is_not_pinned_is_refused(tmp_path, say, repository, revision):
    with pytest.raises(CannotStart, match="must be"):
        fetch(repository, revision, tmp_path, "http://127.0.0.1:9", say)
