"""Voice strings: who speaks, in one line of text. Bounded, pure; knows no name and no folder.

    SPEAKER                   ChatTTS's own: base16384 of raw LZMA of one half per dimension of the model
    CODES                     ChatTTS's own: base16384 of the shape (4, n) and raw LZMA of the codes of a recording
    clone:TRANSCRIPT:CODES    the same with what the recording says, in base64url of UTF-8

A string comes from anybody, so every step has a bound that does not depend on what the string claims.
"""

from __future__ import annotations

import base64
import binascii
import lzma
import re
from dataclasses import dataclass

import numpy as np
import pybase16384

from chattts_server.engine.nouns import CODEBOOKS, END_CODE, STEPS_PER_SECOND, Voice

MAX_REFERENCE_SECONDS = 15.0
MAX_STEPS = int((MAX_REFERENCE_SECONDS + 1) * STEPS_PER_SECOND)  # the encoder rounds up
MAX_TRANSCRIPT = 300  # characters; fifteen seconds are about 80 Chinese characters or 200 letters
MAX_STRING = 8192  # characters; the longest that we make has about 3,600
_CLONE = "clone:"
# The alphabet of base16384, and the mark that says how many bytes the last seven lack.
_BASE16384 = re.compile("[\u4e00-\u8dff]+[\u3d01-\u3d06]?")
_TAIL_CHARACTERS = {0: 0, 1: 1, 2: 2, 3: 2, 4: 3, 5: 3, 6: 4}
# ChatTTS's filter with a dictionary of the size of what is packed instead of 64 MiB: either side reads the other's.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 16384}]


class BadVoice(ValueError):
    """One line for the user; holds nothing of the string."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who speaks. `transcript`: what a recording says; None: the speaker is an embedding."""

    voice: Voice
    transcript: str | None = None

    @property
    def prompt_steps(self) -> int:
        """How much room the recording takes in a prompt."""
        return len(self.voice.codes) // (2 * CODEBOOKS)


def decode(text: str, width: int) -> Speaker:
    """`width`: of the model's speaker embedding. Raises BadVoice; takes a few 10 kB whatever the string says."""
    if len(text) > MAX_STRING:
        raise BadVoice(f"a voice string has at most {MAX_STRING} characters")
    if text.startswith(_CLONE):
        transcript, _, codes = text.removeprefix(_CLONE).partition(":")
        return Speaker(Voice(codes=_codes(_bytes_of(codes))), _transcript(transcript))
    data = _bytes_of(text)
    if data[:2] == b"\x04\x00":  # no raw LZMA begins so
        return Speaker(Voice(codes=_codes(data)), "")
    return Speaker(Voice(embedding=_embedding(data, width)))


def encode_embedding(embedding: bytes) -> str:
    """float32 of the model's width -> SPEAKER."""
    halves = np.frombuffer(embedding, "<f4").astype("<f2")
    return _base16384(lzma.compress(halves.tobytes(), format=lzma.FORMAT_RAW, filters=_FILTERS))


def encode_clone(codes: bytes, transcript: str) -> str:
    """uint16 (4, n) and what is said -> clone:TRANSCRIPT:CODES. Raises BadVoice when nobody could read it back."""
    shape = np.array([CODEBOOKS, len(codes) // (2 * CODEBOOKS)], "<u2").tobytes()
    packed = _base16384(shape + lzma.compress(codes, format=lzma.FORMAT_RAW, filters=_FILTERS))
    said = base64.urlsafe_b64encode(transcript.encode()).decode().rstrip("=")
    text = f"{_CLONE}{said}:{packed}"
    decode(text, 0)
    return text


def _base16384(data: bytes) -> str:
    text: str = pybase16384.encode_to_string(data)
    return text


def _bytes_of(text: str) -> bytes:
    """The library is C and takes what it gets, so the string is looked at first."""
    if _BASE16384.fullmatch(text) is None:
        raise BadVoice("this is no name, no seed:<number> and no voice string")
    lacking = ord(text[-1]) - 0x3D00 if text[-1] < "\u4e00" else 0
    characters = len(text) - (lacking > 0)
    if (characters - _TAIL_CHARACTERS[lacking]) % 4 or characters < _TAIL_CHARACTERS[lacking]:
        raise BadVoice("the voice string is cut off")
    data: bytes = pybase16384.decode_from_string(text)
    return data


def _inflate(data: bytes, expected: int) -> bytes:
    decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_FILTERS)
    try:
        plain = decompressor.decompress(data, max_length=expected + 1)
    except lzma.LZMAError:
        raise BadVoice("the voice string is damaged") from None
    if len(plain) != expected or not decompressor.eof or decompressor.unused_data:
        raise BadVoice("the voice string holds more or less than a voice")
    return plain


def _embedding(data: bytes, width: int) -> bytes:
    halves = np.frombuffer(_inflate(data, 2 * width), "<f2")
    if not np.isfinite(halves).all() or not halves.any():
        raise BadVoice("the voice string holds numbers that are not finite, or nothing but zeros")
    return halves.astype("<f4").tobytes()


def _codes(data: bytes) -> bytes:
    if len(data) < 4:
        raise BadVoice("the voice string is cut off")
    books, steps = np.frombuffer(data[:4], "<u2").tolist()
    if books != CODEBOOKS or not 1 <= steps <= MAX_STEPS:
        raise BadVoice(f"a recording has {CODEBOOKS} times 1 to {MAX_STEPS} codes")
    codes = _inflate(data[4:], 2 * CODEBOOKS * steps)
    if int(np.frombuffer(codes, "<u2").max()) >= END_CODE:
        raise BadVoice("a code of the recording is out of range")
    return codes


def _transcript(said: str) -> str:
    try:
        text = base64.b64decode(said + "=" * (-len(said) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError):
        raise BadVoice("the transcript in the voice string cannot be read") from None
    if not text.strip() or len(text) > MAX_TRANSCRIPT:
        raise BadVoice(f"a transcript has 1 to {MAX_TRANSCRIPT} characters")
    return text
