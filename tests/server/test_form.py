"""Forms: what clients send comes out to the byte, anything else is refused."""

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chattts_server.api.form import MAX_PARTS, parse_form
from chattts_server.errors import InvalidRequest

TYPE = "multipart/form-data; boundary=b"


def form(*parts, end=b"--b--\r\n"):
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + end


def field(name, content=b"x"):
    return b'Content-Disposition: form-data; name="' + name + b'"\r\n\r\n' + content


@given(st.binary(max_size=300), st.text(max_size=50))
@example(b"\r\n--b", "")
@example(b"\r\n\r\n", "好")
def test_what_httpx_sends_comes_out_to_the_byte(data, text):
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    files = {"audio": ('我"x.wav', data, "audio/wav")}
    request = httpx.Request("POST", "http://x/", data={"transcript": text, "name": "anna"}, files=files)
    fields = parse_form(request.headers["content-type"], request.read())
    assert fields == {"transcript": text.encode(), "name": b"anna", "audio": data}


def test_a_form_as_it_should_be():
    assert parse_form(TYPE, form(field(b"a"), field(b"b", b"\r\n"))) == {"a": b"x", "b": b"\r\n"}
    assert parse_form(TYPE, b"preamble\r\n" + form(field(b"a"), end=b"--b--epilogue")) == {"a": b"x"}
    assert parse_form('multipart/form-data; boundary="b"', form()) == {}
    many = [field(b"%d" % number) for number in range(MAX_PARTS)]
    assert len(parse_form(TYPE, form(*many))) == MAX_PARTS


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", form(field(b"a"))),
        ("multipart/form-data; boundary=" + "b" * 71, form(field(b"a"))),
        ("multipart/form-data; boundary*=utf-8''b", form(field(b"a"))),
        (TYPE, b""),
        (TYPE, form(field(b"a"), end=b"")),
        (TYPE, form(field(b"a"), field(b"a"))),
        (TYPE, form(field(b""))),
        (TYPE, form(b"Content-Type: text/plain\r\n\r\nx")),
        (TYPE, form(b'Content-Disposition: form-data; name="a"')),
        (TYPE, form(*[field(b"%d" % number) for number in range(MAX_PARTS + 1)])),
    ],
)
def test_what_is_no_form_is_refused(kind, body):
    with pytest.raises(InvalidRequest) as caught:
        parse_form(kind, body)
    assert caught.value.code == "malformed_form"


@given(st.text(max_size=60), st.lists(st.sampled_from([b"--b", b"\r\n", b"--", b'name="a"', b"Content-Disposition:",
       b"form-data;", b" ", b"\xff", b"x"]), max_size=30).map(b"".join))  # fmt: skip
def test_any_bytes_are_a_form_or_refused(kind, body):
    for content_type in (TYPE, kind):
        try:
            fields = parse_form(content_type, body)
        except InvalidRequest:
            continue
        assert all(isinstance(name, str) for name in fields)
