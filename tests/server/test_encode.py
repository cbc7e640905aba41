"""Formats: what is sent can be decoded and is as long as it should be."""

import io

import av
import numpy as np
import pytest

from chattts_server.audio.encode import ENCODERS, encode_whole, wav_header

SECONDS = 2.0
PCM = (0.3 * np.sin(np.arange(int(24000 * SECONDS)) * 0.1)).astype("<f4").tobytes()


def duration(data, kind):
    with av.open(io.BytesIO(data), format=kind) as container:
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


def streamed(kind):
    encoder = ENCODERS[kind]()
    parts = [encoder.encode(PCM[start : start + 40_000]) for start in range(0, len(PCM), 40_000)]
    return b"".join([*parts, encoder.finish()])


def test_a_whole_wav_says_its_exact_length():
    data = encode_whole("wav", PCM)
    assert int.from_bytes(data[4:8], "little") == len(data) - 8
    assert int.from_bytes(data[40:44], "little") == len(data) - 44 == SECONDS * 48000
    assert duration(data, "wav") == pytest.approx(SECONDS)


@pytest.mark.parametrize("make", [lambda: encode_whole("mp3", PCM), lambda: streamed("mp3")], ids=["whole", "streamed"])
def test_mp3_can_be_decoded(make):
    assert duration(make(), "mp3") == pytest.approx(SECONDS, abs=0.1)  # the codec pads at both ends


def test_streamed_and_whole_hold_the_same_samples():
    assert streamed("pcm") == encode_whole("pcm", PCM) == encode_whole("wav", PCM)[44:]
    assert streamed("wav") == wav_header(None) + encode_whole("pcm", PCM)


def test_loud_samples_are_clipped_not_wrapped():
    loud = np.array([2.0, -2.0, 1.0], "<f4").tobytes()
    assert np.frombuffer(encode_whole("pcm", loud), "<i2").tolist() == [32767, -32767, 32767]
