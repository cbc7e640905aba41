"""The gate: quiet steady noise goes down in the pauses, a voice stays as it is, and no sample moves."""

from itertools import pairwise

import numpy as np
import pytest

from chattts_server.audio.gate import SpectralGate
from tests.server.sounds import loudness, voice_like

RATE = 24000
NOISE = np.random.default_rng(3).normal(0, 0.004, 6 * RATE).astype(np.float32)  # -48 dB of full scale
SECONDS = np.arange(6 * RATE) / RATE
SPEAKS = SECONDS % 2 < 1.2
VOICE = (voice_like(6.0, RATE) * SPEAKS).astype(np.float32)
# Of pauses: after the floor is known, and away from the voice's edges.
PAUSES = (SECONDS > 3) & (SECONDS % 2 > 1.45) & (SECONDS % 2 < 1.9)
WINDOWS = (1024, 2048)


def gated(samples, window, cuts=()):
    gate = SpectralGate(window)
    bounds = [0, *cuts, len(samples)]
    pieces = [gate.push(samples[a:b]) for a, b in pairwise(bounds)]
    return np.concatenate([*pieces, gate.finish()])


@pytest.mark.parametrize("window", WINDOWS)
def test_noise_between_words_is_lowered_and_the_voice_is_not(window):
    noisy = VOICE + NOISE
    out = gated(noisy, window)
    assert len(out) == len(noisy)
    assert loudness(out[PAUSES]) < loudness(noisy[PAUSES]) - 8
    spoken = SPEAKS & (SECONDS > 2)
    assert loudness(out[spoken]) == pytest.approx(loudness(noisy[spoken]), abs=0.1)
    assert loudness((out - VOICE)[spoken]) < loudness(NOISE) + 1, "the voice itself is left alone"


@pytest.mark.parametrize("window", WINDOWS)
def test_a_clean_or_loud_sound_passes_unchanged_and_in_its_place(window):
    """Nothing above the loudest floor is taken for noise, however steady it is."""
    hum = (0.3 * np.sin(SECONDS * 900)).astype(np.float32)
    for sound in (VOICE, hum):
        assert loudness(gated(sound, window) - sound) < loudness(sound) - 35


@pytest.mark.parametrize("window", WINDOWS)
def test_a_stream_has_the_samples_of_the_whole_however_it_is_cut(window):
    noisy = VOICE + NOISE
    whole = gated(noisy, window)
    cuts = np.sort(np.random.default_rng(5).integers(0, len(noisy), 40)).tolist()
    assert np.array_equal(gated(noisy, window, cuts), whole)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("length", [0, 1, 255, 1023, 1024, 5000])
def test_as_many_samples_come_out_as_went_in(window, length):
    assert len(gated(NOISE[:length], window)) == length


@pytest.mark.parametrize("window", WINDOWS)
def test_it_holds_back_no_more_than_its_window(window):
    assert len(SpectralGate(window).push(NOISE[:RATE])) >= RATE - window
