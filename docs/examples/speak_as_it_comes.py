"""Speaks what comes in on standard input, while it comes; sound goes out while it is made.

    some-llm "tell me a story" | python docs/examples/speak_as_it_comes.py > story.pcm
    some-llm "tell me a story" | python docs/examples/speak_as_it_comes.py | aplay -q -f S16_LE -r 24000 -c 1

Needs `pip install websockets`. Ctrl-C is barge-in: the server is silent at once, and the program ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys

from websockets.asyncio.client import ClientConnection, connect


async def main(url: str, voice: str) -> int:
    async with connect(url) as socket:
        await socket.send(json.dumps({"type": "start", "voice": voice, "response_format": "pcm"}))
        writing = asyncio.create_task(send_text(socket))
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: asyncio.ensure_future(be_silent(socket)))
        failed = await play(socket)
        writing.cancel()
    return 1 if failed else 0


async def send_text(socket: ClientConnection) -> None:
    """Every piece as soon as it is there; the server finds the sentences."""
    while piece := await asyncio.to_thread(sys.stdin.buffer.readline):
        await socket.send(json.dumps({"type": "text", "text": piece.decode()}))
    await socket.send(json.dumps({"type": "end"}))


async def be_silent(socket: ClientConnection) -> None:
    await socket.send(json.dumps({"type": "cancel"}))
    await socket.send(json.dumps({"type": "end"}))


async def play(socket: ClientConnection) -> bool:
    """True when something could not be spoken."""
    failed = False
    async for message in socket:
        if isinstance(message, bytes):
            await asyncio.to_thread(write, message)  # a player that is slow makes the server wait
            continue
        told = json.loads(message)
        if told["type"] in ("error", "utterance.failed"):
            print(told["error"]["message"], file=sys.stderr)
            failed = True
    return failed


def write(audio: bytes) -> None:
    sys.stdout.buffer.write(audio)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Speak standard input while it comes; 16 bit PCM on standard output.")
    parser.add_argument("--url", default="ws://127.0.0.1:8000/v1/audio/speech/stream")
    parser.add_argument("--voice", default="default")
    arguments = parser.parse_args()
    sys.exit(asyncio.run(main(arguments.url, arguments.voice)))
