"""Coverage-guided bytes into the decoder of voice strings: `python -m tests.fuzz.fuzz_speaker_strings`.

A crash, another error than BadVoice, 100 ms or 50 MB for one string ends it with the input that did it.
"""

import lzma
import resource
import sys
import time

import atheris

with atheris.instrument_imports(include=["chattts_server.voices.codec"]):
    from chattts_server.voices import codec

import numpy as np
import pybase16384

from chattts_server.engine.nouns import END_CODE

WIDTH = 768
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 16384}]  # quick: it is the reader that is tried
MAX_SECONDS, MAX_GROWTH_BYTES = 0.1, 50e6


def one(data: bytes) -> None:
    """The first byte says how the rest becomes a string: as it is, as base16384, as a clone, or as packed values."""
    text = as_string(data)
    began, before = time.process_time(), peak_bytes()
    try:
        speaker = codec.decode(text, WIDTH)
    except codec.BadVoice:
        speaker = None
    took, grown = time.process_time() - began, peak_bytes() - before
    assert took < MAX_SECONDS, f"{took:.3f} s"
    assert grown < MAX_GROWTH_BYTES, f"{grown / 1e6:.0f} MB"
    if speaker is not None:
        check(speaker)


def as_string(data: bytes) -> str:
    kind, rest = (data[0] % 6, data[1:]) if data else (0, b"")
    packed = lzma.compress(rest, format=lzma.FORMAT_RAW, filters=FILTERS)
    match kind:
        case 0:
            return rest.decode("utf-8", "replace")
        case 1:
            return rest[: len(rest) // 2 * 2].decode("utf-16-be", "surrogatepass")
        case 2:
            return pybase16384.encode_to_string(rest)
        case 3:
            return "clone:aGk:" + pybase16384.encode_to_string(rest)
        case 4:
            return pybase16384.encode_to_string(packed)
        case _:
            return pybase16384.encode_to_string(b"\x04\x00" + (len(rest) // 8).to_bytes(2, "little") + packed)


def check(speaker: codec.Speaker) -> None:
    voice = speaker.voice
    assert bool(voice.embedding) != bool(voice.codes)
    if voice.embedding:
        values = np.frombuffer(voice.embedding, "<f4")
        assert values.shape == (WIDTH,)
        assert np.isfinite(values).all()
    else:
        codes = np.frombuffer(voice.codes, "<u2").reshape(4, -1)
        assert 1 <= codes.shape[1] <= codec.MAX_STEPS
        assert codes.max() < END_CODE


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
