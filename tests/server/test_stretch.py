"""Speed and sample rate: length follows, pitch stays, and a stream has the samples of the whole."""

from itertools import pairwise

import numpy as np
import pytest

from chattts_server.audio.stretch import Stretch
from tests.server.sounds import RATES, loudness, pitch_of, voice_like

SPEEDS = (0.25, 0.4, 0.5, 0.8, 1.0, 1.25, 2.0, 3.7, 4.0)
SAMPLES = voice_like(6.0, 24000)


def stretched(samples, speed, rate, cuts=()):
    stretch = Stretch(speed, rate)
    bounds = [0, *cuts, len(samples)]
    pieces = [stretch.push(samples[a:b]) for a, b in pairwise(bounds)]
    return np.concatenate([*pieces, stretch.finish()])


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("speed", SPEEDS)
def test_length_follows_the_speed_and_pitch_and_loudness_stay(speed, rate):
    out = stretched(SAMPLES, speed, rate)
    assert len(out) / rate == pytest.approx(6.0 / speed, abs=0.02 + 0.02 / speed)
    assert pitch_of(out, rate) == pytest.approx(pitch_of(SAMPLES, 24000), rel=0.01)
    assert loudness(out) == pytest.approx(loudness(SAMPLES), abs=1.0)


def test_the_measure_of_pitch_hears_what_playing_faster_would_do():
    assert pitch_of(SAMPLES[::2], 24000) == pytest.approx(2 * pitch_of(SAMPLES, 24000), rel=0.01)


@pytest.mark.parametrize("rate", RATES)
def test_another_rate_alone_changes_neither_length_nor_sound(rate):
    out = stretched(SAMPLES, 1.0, rate)
    assert len(out) == len(SAMPLES) * rate // 24000
    assert np.abs(out - voice_like(6.0, rate)).max() < 0.01, "nor is there a click anywhere"


@pytest.mark.parametrize(("speed", "rate"), [(0.25, 8000), (0.8, 24000), (1.0, 16000), (1.0, 48000), (3.7, 48000)])
def test_a_stream_has_the_samples_of_the_whole_however_it_is_cut(speed, rate):
    whole = stretched(SAMPLES, speed, rate)
    random = np.random.default_rng(5)
    for _ in range(3):
        cuts = np.sort(random.integers(0, len(SAMPLES), 30)).tolist()  # some pieces are empty
        assert np.array_equal(stretched(SAMPLES, speed, rate, cuts), whole)


def test_audio_comes_while_it_is_pushed():
    stretch = Stretch(0.5, 48000)
    assert len(stretch.push(SAMPLES[:24000])) > 0.8 * 2 * 48000


def test_nothing_in_is_nothing_out():
    assert len(stretched(SAMPLES[:0], 2.0, 48000)) == 0
