"""Frames on the Unix socket: four bytes of length, then one msgpack-encoded message. Never pickle. Knows no meaning."""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from typing import Generic, TypeVar

import msgspec

from chattts_server.engine.nouns import FromEngine, ToEngine

MAX_FRAME_BYTES = 32 * 1024 * 1024  # a minute of reference audio is 5.8 MB
_LENGTH = struct.Struct("!I")
_encoder = msgspec.msgpack.Encoder()
to_engine = msgspec.msgpack.Decoder(ToEngine)
from_engine = msgspec.msgpack.Decoder(FromEngine)
M = TypeVar("M")


class WireError(Exception):
    """Bytes that are no message of this protocol, or a frame over the limit."""


def pack(message: msgspec.Struct) -> bytes:
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class Unpacker(Generic[M]):
    """Bytes as they come in, whole messages out."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[M]) -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[M]:
        self._buffer += data
        messages: list[M] = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise WireError(f"a frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}")
            if len(self._buffer) < _LENGTH.size + length:
                break
            body = bytes(self._buffer[_LENGTH.size : _LENGTH.size + length])
            del self._buffer[: _LENGTH.size + length]
            try:
                messages.append(self._decoder.decode(body))
            except msgspec.MsgspecError as error:
                raise WireError(f"not a message of this protocol: {error}") from error
        return messages


async def read(reader: asyncio.StreamReader, unpacker: Unpacker[M]) -> list[M] | None:
    """The next messages; None when the other side has closed."""
    data = await reader.read(1 << 18)
    return unpacker.feed(data) if data else None


class EnginePort:
    """The engine's end: reads without waiting between steps, waits only when there is nothing to do."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(path)
        self._unpacker = Unpacker(to_engine)

    def send(self, message: FromEngine) -> None:
        self._socket.sendall(pack(message))

    def receive(self, wait_seconds: float = 0.0) -> list[ToEngine]:
        """Raises EOFError when the HTTP process has gone: there is nobody to work for."""
        if not select.select([self._socket], [], [], wait_seconds)[0]:
            return []
        data = self._socket.recv(1 << 18)
        if not data:
            raise EOFError("the HTTP process has closed the socket")
        return self._unpacker.feed(data)

    def close(self) -> None:
        self._socket.close()
