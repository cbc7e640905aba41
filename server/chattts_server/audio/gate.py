"""A spectral gate: lowers what is steady and quiet behind a voice, piece by piece. Knows nothing but samples.

Why not ffmpeg's afftdn: it takes its window from the sample rate, and the window is what a client chooses here.
A wide window (2048) tells noise from voice in finer bands and blurs quick sounds more; it delays by 85 ms, 1024 by 43.
"""

from __future__ import annotations

import numpy as np

from chattts_server.engine.nouns import SAMPLE_RATE

OVERLAP = 4  # windows over each sample
# How loud the floor of white noise may be, as its RMS: what is louder is never taken for noise.
QUIETEST_FLOOR, LOUDEST_FLOOR = 1e-4, 2e-2  # -80 and -34 dB of full scale
FLOOR_RISES_DB_PER_SECOND = 12.0  # it falls at once: a pause shows it
SMOOTHING_SECONDS = 0.06  # of the power that the floor follows: single frames of noise vary by 10 dB
BIAS = 2.0  # a minimum of what varies is below its mean
OPEN_DB, CLOSED_DB = 9.0, 3.0  # over the floor: untouched, and lowered as far as it goes
DEEPEST = 10 ** (-18 / 20)  # not to nothing: a hole sounds worse than its noise
CLOSING_SECONDS = 0.08  # it opens at once


class SpectralGate:
    """As many samples come out as went in, in the same places."""

    def __init__(self, window: int) -> None:
        self._size, self._hop = window, window // OVERLAP
        hann = np.hanning(window + 1)[:-1]
        self._window = hann.astype(np.float32)
        self._scale = 1 / np.sum(hann.reshape(OVERLAP, -1) ** 2, axis=0).mean()
        hop_seconds = self._hop / SAMPLE_RATE
        unit = float(np.sum(hann**2))  # the power of white noise of RMS 1 in each band
        self._lowest, self._highest = unit * QUIETEST_FLOOR**2, unit * LOUDEST_FLOOR**2
        self._rise = 10 ** (FLOOR_RISES_DB_PER_SECOND * hop_seconds / 10)
        self._follow = 1 - np.exp(-hop_seconds / SMOOTHING_SECONDS)
        self._closing = np.exp(-hop_seconds / CLOSING_SECONDS)
        bands = window // 2 + 1
        self._floor = np.full(bands, self._lowest)
        self._power = np.full(bands, self._lowest)
        self._gain = np.ones(bands)
        self._input = np.zeros(window - self._hop, np.float32)  # the first window ends with the first hop
        self._output = np.zeros(window, np.float32)  # overlapping windows, still to be added to
        self._skip = window - self._hop  # what comes out before the first sample
        self._owed = 0  # samples in and not out

    def push(self, samples: np.ndarray) -> np.ndarray:
        self._owed += len(samples)
        return self._pass(samples)

    def finish(self) -> np.ndarray:
        out = self._pass(np.zeros(self._size + self._hop, np.float32), self._owed)
        self._owed = 0
        return out

    def _pass(self, samples: np.ndarray, most: int | None = None) -> np.ndarray:
        self._input = np.concatenate([self._input, samples])
        count = max(0, (len(self._input) - self._size) // self._hop + 1)
        pieces = [self._frame(number * self._hop) for number in range(count)]
        self._input = self._input[count * self._hop :]
        out = np.concatenate(pieces) if pieces else np.empty(0, np.float32)
        skipped = min(self._skip, len(out))
        self._skip -= skipped
        out = out[skipped:][:most]
        self._owed -= len(out) if most is None else 0
        return out

    def _frame(self, start: int) -> np.ndarray:
        spectrum = np.fft.rfft(self._input[start : start + self._size] * self._window)
        spectrum *= self._next_gain(spectrum.real**2 + spectrum.imag**2)
        self._output += (np.fft.irfft(spectrum, self._size) * self._window * self._scale).astype(np.float32)
        done = self._output[: self._hop].copy()
        self._output = np.concatenate([self._output[self._hop :], np.zeros(self._hop, np.float32)])
        return done

    def _next_gain(self, power: np.ndarray) -> np.ndarray:
        self._power += self._follow * (power - self._power)
        self._floor = np.clip(np.minimum(self._floor * self._rise, self._power), self._lowest, self._highest)
        over = 10 * np.log10(np.maximum(power, 1e-20) / (BIAS * self._floor))
        openness = np.clip((over - CLOSED_DB) / (OPEN_DB - CLOSED_DB), 0.0, 1.0)
        # A band opens with its neighbours: single ones that flicker are heard as chirping.
        openness = np.maximum(openness[1:-1], 0.5 * (openness[:-2] + openness[2:]))
        wanted = DEEPEST + (1 - DEEPEST) * np.concatenate([openness[:1], openness, openness[-1:]])
        self._gain = np.maximum(wanted, self._gain * self._closing)
        return self._gain
