"""The whole chain: the stages in their order, all formats, stream and whole."""

import numpy as np
import pytest

from chattts_server.audio.chain import Chain, Sound, as_whole_wav
from chattts_server.audio.encode import FORMATS, int16
from tests.server.sounds import decoded, loudness, pitch_of, voice_like

SAMPLES = voice_like(4.0, 24000)
EVERYTHING = {"speed": 1.6, "sample_rate": 48000, "gate_window": 1024}


def through(sound, step=9000):
    chain = Chain(sound)
    pieces = [SAMPLES[start : start + step].tobytes() for start in range(0, len(SAMPLES), step)]
    return b"".join([*map(chain.push, pieces), chain.finish()])


@pytest.mark.parametrize("kind", FORMATS)
def test_all_knobs_together_in_every_format(kind):
    heard = decoded(through(Sound(kind, **EVERYTHING)), kind, 48000)
    assert len(heard) / 48000 == pytest.approx(4.0 / 1.6, abs=0.1)
    assert pitch_of(heard, 48000) == pytest.approx(pitch_of(SAMPLES, 24000), rel=0.01)
    assert loudness(heard) == pytest.approx(loudness(SAMPLES), abs=1.0)


def test_without_knobs_the_models_samples_come_out():
    assert through(Sound("pcm")) == int16(SAMPLES).tobytes()
    assert as_whole_wav(Sound("wav"), SAMPLES.tobytes())[44:] == int16(SAMPLES).tobytes()


@pytest.mark.parametrize("knobs", [{}, {"speed": 0.5}, {"sample_rate": 8000}, {"gate_window": 2048}, EVERYTHING])
def test_a_stream_and_a_whole_hold_the_same_samples(knobs):
    streamed = through(Sound("pcm", **knobs), 5000)
    assert streamed == through(Sound("pcm", **knobs), 30000)
    assert as_whole_wav(Sound("wav", **knobs), SAMPLES.tobytes())[44:] == streamed


def test_the_gate_comes_first_it_knows_only_the_models_rate():
    noise = np.random.default_rng(1).normal(0, 0.004, 96000).astype("<f4")
    chain = Chain(Sound("pcm", sample_rate=8000, gate_window=1024))
    plain = Chain(Sound("pcm", sample_rate=8000))
    gated, as_it_is = (np.frombuffer(c.push(noise.tobytes()) + c.finish(), "<i2") / 32768 for c in (chain, plain))
    assert loudness(gated[16000:]) < loudness(as_it_is[16000:]) - 8
