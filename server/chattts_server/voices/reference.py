"""A recording that somebody sent -> samples. The decoders are C code and the file is a stranger's, so they run in a
process of their own, with little memory and time: what it does to itself hurts nobody.

    python -m chattts_server.voices.reference < FILE > SAMPLES      float32 little-endian, mono, 24 kHz

Exit 0 is samples; 3 is one line on stderr for the user; anything else is a file that ended its decoder.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from chattts_server.engine.nouns import SAMPLE_RATE
from chattts_server.voices.codec import MAX_REFERENCE_SECONDS

MIN_REFERENCE_SECONDS = 1.0
DECODE_SECONDS = 20.0  # of the clock; a fraction of a core may be slow
CPU_SECONDS, MEMORY_BYTES = 10, 1 << 30  # beyond what Python and its packages take
COMMAND = (sys.executable, "-m", "chattts_server.voices.reference")
# numpy's would reserve memory for each core of the node.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
UNREADABLE = 3
# Containers that hold their own sound. Playlists and the like, which name other files, are not among them.
CONTAINERS = "wav,mp3,flac,ogg,matroska,webm,mov,mp4,m4a,aac"
_OPTIONS = {"format_whitelist": CONTAINERS, "protocol_whitelist": "none"}


class BadRecording(ValueError):
    """One line for the user."""


async def decode_recording(data: bytes, command: Sequence[str] = COMMAND, seconds: float = DECODE_SECONDS) -> bytes:
    """Float32 mono PCM at 24 kHz, between 1 and 15 seconds. Raises BadRecording. `command`: another decoder (tests)."""
    pipe, environment = asyncio.subprocess.PIPE, {**os.environ, **_ENVIRONMENT}
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(seconds):
            samples, said = await process.communicate(data)
    except TimeoutError:
        raise BadRecording("decoding the recording takes too long") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode == UNREADABLE:
        raise BadRecording(said.decode().strip())
    if process.returncode != 0:
        raise BadRecording("the recording cannot be decoded")
    return samples


def samples_of_file(data: bytes) -> np.ndarray:
    """float32 [n]. Raises BadRecording; reads no further than the longest recording that is allowed."""
    most = int(MAX_REFERENCE_SECONDS * SAMPLE_RATE)
    pieces: list[np.ndarray] = []
    try:
        with av.open(io.BytesIO(data), "r", options=_OPTIONS) as container:
            if not container.streams.audio:
                raise BadRecording("the file holds no sound")
            resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
            frames = container.decode(container.streams.audio[0])
            while sum(map(len, pieces)) <= most and (frame := next(frames, None)) is not None:
                pieces += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
            pieces += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    except av.FFmpegError:
        raise BadRecording(f"the file is not one of {CONTAINERS}, or it is damaged") from None
    samples = np.concatenate([np.zeros(0, np.float32), *pieces])
    return _checked(samples, most)


def _checked(samples: np.ndarray, most: int) -> np.ndarray:
    if len(samples) > most:
        raise BadRecording(f"the recording is longer than {MAX_REFERENCE_SECONDS:g} seconds")
    if len(samples) < MIN_REFERENCE_SECONDS * SAMPLE_RATE:
        raise BadRecording(f"the recording is shorter than {MIN_REFERENCE_SECONDS:g} second")
    if not np.isfinite(samples).all() or np.abs(samples).max() < 1e-3:
        raise BadRecording("the recording is silent")
    loud_enough: np.ndarray = np.clip(samples, -1.0, 1.0)
    return loud_enough


def main() -> int:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    most = _own_bytes() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        samples = samples_of_file(sys.stdin.buffer.read())
    except BadRecording as problem:
        print(problem, file=sys.stderr)
        return UNREADABLE
    sys.stdout.buffer.write(samples.astype("<f4").tobytes())
    return 0


def _own_bytes() -> int:
    """Of address space, as it is now."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    sys.exit(main())
