"""Row R19, by hand: what no HTTP library would send. Never a 5xx, never a crash, and the next one is served."""

import asyncio
import json
import re
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from chattts_server import http_protocol
from tests.server.harness import speech, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
HEAD = b"POST /tts HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = b'{"text": "\xe5\xa5\xbd", "max_seconds": 0.1}'
GOOD = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(serve):
    async with serve() as shared:
        yield shared
        assert (await speech(shared, max_seconds=0.1)).status_code == 200
        await until(lambda: shared.server.synthesis.admission.inflight == 0, 3)
        assert shared.server.synthesis.queue._inside == 0


@asynccontextmanager
async def connection(running):
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass  # the server was first


async def sent(running, *parts, pause=0.0, seconds=5.0):
    """All that comes back for these bytes until the server closes, or nothing comes for a while."""
    async with connection(running) as (reader, writer):
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause)
        answer = b""
        try:
            async with asyncio.timeout(seconds):
                while data := await reader.read(65536):
                    answer += data
        except (TimeoutError, ConnectionError):
            pass
    return answer


def statuses(answer):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


DIGITS = b'{"text":"a","x":' + b"9" * 4400 + b"}"
CLOSE = b"Connection: close\r\n"
BAD = {
    "no http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), [400]),
    "no version": (b"GET /nothing\r\n\r\n", [404]),
    "a space in a header's name": (b"GET /livez HTTP/1.1\r\nHost : x\r\n\r\n", [400]),
    "two lengths": (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", [400]),
    "length and chunks": (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [400]),
    "a negative length": (HEAD + b"Content-Length: -1\r\n\r\n", [400]),
    "a length beyond all numbers": (HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n", [400]),
    "a chunk that is no number": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", [400]),
    "a chunk longer than it says": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}{}\r\n0\r\n\r\n", [400]),
    "a path of other bytes": (b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "CONNECT": (b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "a zero byte in a header": (b"GET /livez HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n", [400]),
    "an unknown method": (b"BREW /tts HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "no host": (b"GET /livez HTTP/1.1\r\n" + CLOSE + b"\r\n", [200]),
    "a body that is announced too large": (HEAD + CLOSE + b"Content-Length: 99999999\r\n\r\n", [413]),
    "lone surrogates": (HEAD + CLOSE + b'Content-Length: 18\r\n\r\n{"text":"\\ud800"}\n', [422]),
    "a body that is not UTF-8": (HEAD + CLOSE + b"Content-Length: 13\r\n\r\n{\"text\":\"\xff\"}\n", [400]),
    "deep brackets": (HEAD + CLOSE + b"Content-Length: 60000\r\n\r\n" + b"[" * 60000, [400]),
    "a number of 4,400 digits": (HEAD + CLOSE + b"Content-Length: 4417\r\n\r\n" + DIGITS, [400]),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
async def test_r19_what_is_no_good_request_is_answered_and_closed(running, what):
    data, wanted = BAD[what]
    answer = await sent(running, data)
    assert statuses(answer) in ([wanted[0]], [422]) if wanted[0] >= 400 else statuses(answer) == wanted
    if wanted[0] == 400 and statuses(answer) == [400]:
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"]
    assert statuses(await sent(running, GOOD.replace(b"Host", CLOSE + b"Host"))) == [200]


@pytest.mark.parametrize("pieces", [1, 40])
async def test_r19_a_huge_head_is_431_before_it_is_held(running, pieces):
    for head in (b"GET /livez HTTP/1.1\r\nX: ", b"GET /livez?", b"GET /livez HTTP/1.1\r\n"):
        filler = (b"A: b\r\n" * 200_000)[:1_000_000] if head.endswith(b"\r\n") else b"a" * 1_000_000
        size = len(filler) // pieces
        parts = [filler[at : at + size] for at in range(0, len(filler), size)]
        answer = await sent(running, head, *parts, b"\r\n\r\n", pause=0.001)
        assert statuses(answer) in ([431], []), "the kernel may drop the answer when more was still coming"
    assert statuses(await sent(running, GOOD.replace(b"Host", CLOSE + b"Host"))) == [200]


async def test_r19_headers_behind_a_chunked_body_are_bounded_too(running):
    chunked = HEAD + CLOSE + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)
    few = await sent(running, chunked + b"X-Checksum: abc\r\n\r\n")
    assert statuses(few) == [200]
    many = await sent(running, chunked, *[b"a:b\r\n" * 2_000] * 10, pause=0.001)
    assert 200 not in statuses(many)


async def test_r19_a_head_just_within_the_bound_is_read(running):
    answer = await sent(running, b"GET /livez HTTP/1.1\r\n" + CLOSE + b"X: " + b"a" * 32_000 + b"\r\n\r\n")
    assert statuses(answer) == [200]
    assert statuses(await sent(running, b"GET /livez HTTP/1.1\r\nX: " + b"a" * 33_000 + b"\r\n\r\n")) == [431]


async def test_r19_slow_heads_and_bodies_end_in_time_and_hold_up_nobody(running, monkeypatch):
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(http_protocol, "BODY_SECONDS", 0.4)
    slow = {
        "silent": (b"",),
        "a head by bytes": tuple(GOOD[at : at + 1] for at in range(30)),
        "half a head": (GOOD[:40],),
        "empty lines": (b"\r\n",) * 5,
        "half a body": (GOOD[:-10],),
        "chunks that do not end": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n{\r\n", b"1\r\n \r\n"),
    }
    async with asyncio.timeout(9):  # shorter than HEAD_SECONDS and BODY_SECONDS as they are
        answers = await asyncio.gather(
            *(sent(running, *parts, pause=0.05) for parts in slow.values() for _ in range(20)),
            *(speech(running, max_seconds=0.1) for _ in range(5)),
        )
    assert {answer.status_code for answer in answers[-5:]} == {200}
    assert all(statuses(answer) in ([408], []) for answer in answers[:-5])
    await until(lambda: len(running.server.server_state.connections) <= 5)


async def test_r19_one_that_is_in_time_is_not_cut(running, monkeypatch):
    """The same bounds; the answer takes longer than all of them, and a pipelined request waits meanwhile."""
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(http_protocol, "BODY_SECONDS", 0.3)
    async with connection(running) as (reader, writer):
        async with running.client.stream("GET", "/livez"):
            writer.write(GOOD + GOOD[:60])
            answer = await reader.readuntil(b"RIFF")
            assert statuses(answer) == [200]
        writer.write(GOOD[60:])
        assert statuses(await reader.readuntil(b"RIFF")) == [200]
        await asyncio.sleep(0.5)  # idle between requests: kept
        writer.write(GOOD)
        assert statuses(await reader.readuntil(b"RIFF")) == [200]


async def test_r19_pipelined_requests_are_answered_in_order(running):
    probe = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    missing = b"GET /nothing HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n"
    assert statuses(await sent(running, GOOD + probe + GOOD + missing)) == [200, 200, 200, 404]
    assert statuses(await sent(running, probe * 500 + missing)) == [200] * 500 + [404]


async def test_r19_garbage_after_a_request_is_not_mixed_into_its_answer(running):
    good = await sent(running, GOOD.replace(b"Host", CLOSE + b"Host").replace(b"0.1", b"  5"))
    assert statuses(good) == [200]
    answer = await sent(running, GOOD.replace(b"0.1", b"  5"), b"\x00garbage\r\n\r\n")
    assert b"malformed" not in answer
    assert statuses(answer) in ([], [200])


async def test_r19_a_client_that_closes_its_half_leaves_nothing_behind(running):
    async with connection(running) as (reader, writer):
        writer.write(GOOD.replace(b"0.1", b" 30"))
        writer.write_eof()
        await reader.read()
    await until(lambda: running.server.synthesis.admission.inflight == 0)
    assert not running.server.synthesis.engine._rows


async def test_r19_a_reset_at_any_moment_leaves_nothing_behind(running):
    for at in (0, 1, 40, len(GOOD) - 3, len(GOOD)):
        async with connection(running) as (_, writer):
            writer.write(GOOD[:at])
            await asyncio.sleep(0.01)
            writer.transport.abort()
    await until(lambda: running.server.synthesis.admission.inflight == 0)


async def test_r19_garbage_of_many_kinds(running):
    """Good requests with some bytes changed, cut or repeated: answered with anything but 5xx, or closed."""
    import random

    chooser, seen = random.Random(4), set()

    def spoiled():
        data = bytearray(GOOD)
        for _ in range(chooser.randint(1, 6)):
            at = chooser.randrange(len(data))
            match chooser.randrange(4):
                case 0:
                    data[at] = chooser.randrange(256)
                case 1:
                    del data[at : at + chooser.randint(1, 9)]
                case 2:
                    data[at:at] = bytes(chooser.randrange(256) for _ in range(chooser.randint(1, 9)))
                case 3:
                    data[at:at] = data[at : at + 20]
        return bytes(data)

    for _ in range(15):
        answers = await asyncio.gather(*(sent(running, spoiled(), seconds=0.3) for _ in range(20)))
        seen |= {status for answer in answers for status in statuses(answer)}
    assert {200, 400} <= seen
    assert not {status for status in seen if status >= 500}
