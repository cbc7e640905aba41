"""Forwards connections accepted on an inherited listening socket to an address of this network namespace.

A socket stays in the namespace that made it: this is the only thread between the host and the node, and it leads to
the API server alone. Arguments: the socket's file descriptor, address, port.
"""

from __future__ import annotations

import asyncio
import socket
import sys

CHUNK = 65536


async def main(descriptor: int, address: str, port: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await forward(reader, writer, address, port)

    server = await asyncio.start_server(connected, sock=socket.socket(fileno=descriptor))
    await server.serve_forever()


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str, port: int) -> None:
    try:
        inner_reader, inner_writer = await asyncio.open_connection(address, port)
    except OSError:  # the API server is not up (yet): the caller sees a closed connection and asks again
        writer.close()
        return
    await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer), return_exceptions=True)
    writer.close()
    inner_writer.close()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    finally:
        if writer.can_write_eof() and not writer.is_closing():
            writer.write_eof()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
