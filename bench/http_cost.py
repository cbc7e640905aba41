"""What an answer costs the HTTP process: CPU milliseconds of a request, and of an audio second in each format.

    python -m bench.http_cost [--requests 300] [--model FOLDER]

A server with random weights on loopback; CPU time is that of its HTTP process alone (/proc/PID/stat), the engine's is
not in it. The formats are measured in this process, which encodes what that one would.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import processor
from chattts_server.audio.chain import Chain, Sound
from chattts_server.audio.encode import FORMATS
from dev.demo import install

AUDIO_SECONDS = 60
CHUNK_SAMPLES = 12_000  # as the engine sends: half a second
TICKS = os.sysconf("SC_CLK_TCK")
ASKED = {  # 0.3 s of audio: next to nothing of the time is that of the sound
    "/tts (wav)": ("/tts", {"text": "你好", "max_seconds": 0.3}),
    "wav": ("/v1/audio/speech", {"input": "你好", "response_format": "wav", "max_seconds": 0.3}),
    "pcm, streamed": ("/v1/audio/speech", {"input": "你好", "response_format": "pcm", "max_seconds": 0.3}),
    "mp3, streamed": ("/v1/audio/speech", {"input": "你好", "response_format": "mp3", "max_seconds": 0.3}),
    "pcm, sse": (
        "/v1/audio/speech",
        {"input": "你好", "response_format": "pcm", "max_seconds": 0.3, "stream_format": "sse"},
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.http_cost")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--model", type=Path, help="weights; default: random ones")
    arguments = parser.parse_args()
    Path("out").mkdir(exist_ok=True)
    print(f"{date.today()}, {processor()}, {os.cpu_count()} cores\n")
    with _server(install.checkpoint(Path("out"), arguments.model)) as (pid, address):
        print("| request | CPU ms of the HTTP process |\n|---|---|")
        for name, (path, body) in ASKED.items():
            print(f"| {name} | {_per_request(pid, address, path, body, arguments.requests):.2f} |", flush=True)
    print("\n| form | CPU ms per audio second | KB per audio second |\n|---|---|---|")
    for name, sound in _sounds():
        milliseconds, size = cpu_per_audio_second(lambda sound=sound: Chain(sound))  # type: ignore[misc]
        print(f"| {name} | {milliseconds:.2f} | {size / 1000:.1f} |", flush=True)


def _sounds() -> Iterator[tuple[str, Sound]]:
    for kind in FORMATS:
        yield kind, Sound(kind)
    for rate in (8000, 16000, 48000):
        yield f"pcm, sample_rate {rate}", Sound("pcm", sample_rate=rate)
    for speed in (0.5, 2.0):
        yield f"pcm, speed {speed}", Sound("pcm", speed=speed)
    for window in (1024, 2048):
        yield f"pcm, denoise {window}", Sound("pcm", gate_window=window)


def cpu_per_audio_second(make: Callable[[], Chain]) -> tuple[float, float]:
    """(CPU milliseconds, bytes) for each second of the model's audio: noise in syllables, as hard as speech."""
    seconds = np.arange(AUDIO_SECONDS * 24000) / 24000
    noise = np.random.default_rng(1).normal(0, 0.1, len(seconds))
    pcm = (noise * np.sin(2 * np.pi * 2 * seconds) ** 2).astype("<f4").tobytes()
    chain, size, began = make(), 0, time.process_time()
    for start in range(0, len(pcm), 4 * CHUNK_SAMPLES):
        size += len(chain.push(pcm[start : start + 4 * CHUNK_SAMPLES]))
    size += len(chain.finish())
    return (time.process_time() - began) * 1000 / AUDIO_SECONDS, size / AUDIO_SECONDS


def _per_request(pid: int, address: str, path: str, body: dict[str, Any], requests: int) -> float:
    data = json.dumps(body).encode()
    for warm_up in (True, False):
        before = _cpu_seconds(pid)
        count = requests // 10 if warm_up else requests
        connection = http.client.HTTPConnection(address)
        for _ in range(count):
            connection.request("POST", path, data, {"content-type": "application/json"})
            answer = connection.getresponse()
            if answer.status != 200 or not answer.read():
                raise SystemExit(f"{path} answered {answer.status}")
        connection.close()
    return (_cpu_seconds(pid) - before) * 1000 / count


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def _server(model: Path) -> Iterator[tuple[int, str]]:
    command = [sys.executable, "-m", "chattts_server", "serve", "--model", str(model), "--device", "cpu"]
    command += ["--host", "127.0.0.1", "--port", "0", "--metrics-port", "0", "--log-format", "json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = None
        for line in process.stderr:
            if '"listening"' in line:
                port = json.loads(line)["port"]
            if '"engine ready"' in line:
                break
        try:
            yield process.pid, f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.stderr.close()


if __name__ == "__main__":
    main()
