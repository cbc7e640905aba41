"""Cold starts: from the start of a process to its first audio, weights in the page cache. Ours and ChatTTS's."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from chattts_server.engine.client import EngineClient, EngineCommand
from chattts_server.engine.nouns import UNLIMITED_CREDIT, Limits, Sampling, Voice
from chattts_server.text.tokens import PromptTokenizer

STEPS = 47  # a second of audio
LONGEST_START = 600.0  # seconds

_NATIVE = """
import sys, torch
from pathlib import Path
from chattts_server.engine.native import exactly, load_chat
from chattts_server.engine.threads import cpu_threads
torch.set_num_threads(cpu_threads())
chat = load_chat(Path(sys.argv[1]), torch.device(sys.argv[2]))
waves = chat.infer([sys.argv[3]], skip_refine_text=True, split_text=False, params_infer_code=exactly(int(sys.argv[4])))
assert len(waves[0]) > 0
"""


def ours(checkpoint: Path, device: str, text: str, dtype: str = "auto") -> float:
    """Seconds of a server's engine process, through its socket, digests checked."""
    return asyncio.run(_ours(checkpoint, device, text, dtype))


async def _ours(checkpoint: Path, device: str, text: str, dtype: str) -> float:
    token_ids = PromptTokenizer(checkpoint).prompt(text)
    client = EngineClient(EngineCommand.of(checkpoint, device, dtype, None, "text"))
    began = time.perf_counter()
    await client.start()
    try:
        async with asyncio.timeout(LONGEST_START):
            await client.ready.wait()
        row = client.submit(token_ids, Voice(), Sampling(seed=1), Limits(STEPS, STEPS), None, UNLIMITED_CREDIT)
        await anext(row)
        return time.perf_counter() - began
    finally:
        await client.stop()


def native(checkpoint: Path, device: str, text: str) -> float:
    """Seconds of a Python process that imports ChatTTS, loads the same files and speaks as much."""
    began = time.perf_counter()
    argv = [sys.executable, "-c", _NATIVE, str(checkpoint), device, text, str(STEPS)]
    subprocess.run(argv, check=True, capture_output=True)
    return time.perf_counter() - began
