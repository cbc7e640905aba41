"""Formats: what is sent can be decoded again and sounds as what went in, piece by piece as well as at once."""

import numpy as np
import pytest

from chattts_server.audio.encode import FORMATS, int16, wav_header, whole_wav
from tests.server.sounds import RATES, decoded, energy, spectral_distance, voice_like

SECONDS = 3.0
# Samples that a codec may add: its delay, and the last frame filled up.
PADDING = {"mp3": 3 * 1152, "aac": 3 * 1024, "opus": 0, "flac": 0, "wav": 0, "pcm": 0}
# Mean difference of the spectra; the lossless ones differ by 16 bits alone.
MOST_DB = {"mp3": 3.0, "aac": 3.0, "opus": 3.0, "flac": 0.1, "wav": 0.1, "pcm": 0.1}


def encoded(kind, samples, rate, step):
    encoder = FORMATS[kind].open(rate)
    parts = [encoder.encode(samples[start : start + step]) for start in range(0, len(samples), step)]
    return [*parts, encoder.finish()]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_at_every_rate_is_what_went_in(kind, rate):
    samples = voice_like(SECONDS, rate)
    parts = encoded(kind, samples, rate, rate // 5)
    data = b"".join(parts)
    heard = decoded(data, kind, rate)
    assert 0 <= len(heard) - len(samples) <= PADDING[kind]
    assert energy(heard) == pytest.approx(energy(samples), abs=0.5)
    assert spectral_distance(heard, samples, rate) < MOST_DB[kind]
    assert spectral_distance(voice_like(SECONDS, rate, pitch=220), samples, rate) > 2 * MOST_DB[kind], "it can tell"
    assert data == b"".join(encoded(kind, samples, rate, len(samples)))  # however it comes, and the same every time


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_encoded_is_not_held_back(kind):
    """Of a second, all but the frames that a codec needs in its hands comes out at once."""
    first = FORMATS[kind].open(24000).encode(voice_like(1.0, 24000))
    assert len(decoded(first, kind, 24000)) > 0.8 * 24000


def test_a_whole_wav_says_its_exact_length():
    samples = voice_like(2.0, 16000)
    data = whole_wav(samples, 16000)
    assert int.from_bytes(data[4:8], "little") == len(data) - 8
    assert int.from_bytes(data[40:44], "little") == len(data) - 44 == 2 * 32000
    assert int.from_bytes(data[24:28], "little") == 16000
    assert np.array_equal(decoded(data, "wav", 16000), int16(samples) / 32768)


def test_a_wav_of_unknown_length_has_its_header_once_even_without_samples():
    encoder = FORMATS["wav"].open(8000)
    assert encoder.encode(np.zeros(1, np.float32)) + encoder.finish() == wav_header(None, 8000) + b"\0\0"
    assert FORMATS["wav"].open(8000).finish() == wav_header(None, 8000)


def test_loud_samples_are_clipped_not_wrapped():
    assert int16(np.array([2.0, -2.0, 1.0], np.float32)).tolist() == [32767, -32767, 32767]
