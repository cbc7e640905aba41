"""A server of this checkout on a free port of the loopback, for a measurement. Knows its log alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "chattts_server")


@dataclass(frozen=True, slots=True)
class OwnServer:
    url: str
    pid: int
    engine: dict[str, Any]  # what it said of itself when it was ready


@contextmanager
def own_server(model: Path | None, settings: Mapping[str, str]) -> Iterator[OwnServer]:
    """`model` None: the tiny random checkpoint. Raises RuntimeError with its last lines when it ends too soon."""
    with tempfile.TemporaryDirectory() as folder:
        if model is None:
            model = Path(folder) / "tiny"
            subprocess.run([*COMMAND, "make-checkpoint", str(model)], check=True, stdout=subprocess.DEVNULL)
        usual = {"HOST": "127.0.0.1", "PORT": "0", "METRICS_PORT": "0", "DEVICE": "cpu", "MODEL": str(model)}
        environment = {f"CHATTTS_{key}": value for key, value in (usual | dict(settings)).items()}
        log = Path(folder) / "log"
        with log.open("w") as lines:
            process = subprocess.Popen([*COMMAND, "serve"], env={**os.environ, **environment}, stderr=lines)
        try:
            yield _ready(process, log)
        finally:
            process.terminate()
            process.wait(60)


def _ready(process: subprocess.Popen[bytes], log: Path) -> OwnServer:
    port = 0
    with log.open() as lines:
        while True:
            line = lines.readline()
            if not line:
                try:
                    process.wait(0.05)
                except subprocess.TimeoutExpired:
                    continue
                raise RuntimeError("the server ended: " + "".join(log.read_text().splitlines(True)[-5:]))
            told = json.loads(line) if line.startswith("{") else {}
            if told.get("message") == "listening":
                port = told["port"]
            if told.get("message") == "engine ready" and port:
                return OwnServer(f"http://127.0.0.1:{port}", process.pid, told["engine"])
