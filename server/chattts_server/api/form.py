"""multipart/form-data whose body is already here and bounded: fields by name. Knows no route."""

from __future__ import annotations

from email.message import Message
from email.parser import BytesHeaderParser
from email.policy import HTTP

from chattts_server.errors import InvalidRequest

MAX_PARTS = 16
_END = b"--"


def parse_form(content_type: str, body: bytes) -> dict[str, bytes]:
    """RFC 7578. A field that comes twice, or nobody can name, is refused: which one was meant?"""
    delimiter = b"\r\n--" + _boundary(content_type)
    _, *parts = (b"\r\n" + body).split(delimiter, MAX_PARTS + 1)
    if not parts or not parts[-1].startswith(_END):
        raise _malformed(f"the form does not end, or has more than {MAX_PARTS} fields")
    fields: dict[str, bytes] = {}
    for part in parts[:-1]:
        head, blank, content = part.partition(b"\r\n\r\n")
        name = _name(head.removeprefix(b"\r\n"))
        if not blank or not name or name in fields:
            raise _malformed("a field of the form has no name, no content, or comes twice")
        fields[name] = content
    return fields


def _boundary(content_type: str) -> bytes:
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not 1 <= len(boundary) <= 70 or not boundary.isascii():
        raise _malformed("the form names no boundary")
    return boundary.encode()


def _name(head: bytes) -> str | None:
    name = BytesHeaderParser(policy=HTTP).parsebytes(head).get_param("name", header="content-disposition")
    return name if isinstance(name, str) else None


def _malformed(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="malformed_form")
