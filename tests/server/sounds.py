"""Sounds to test with, and how to compare them. Nothing here is random."""

from __future__ import annotations

import io

import av
import numpy as np

RATES = (8000, 16000, 24000, 48000)
RAW = {"pcm": "s16le"}  # ffmpeg's word
CONTAINERS = {"opus": "ogg", "aac": "aac", "mp3": "mp3", "flac": "flac", "wav": "wav"}


def voice_like(seconds: float, rate: int, pitch: float = 150.0) -> np.ndarray:
    """Harmonics below 3.4 kHz in four syllables a second."""
    t = np.arange(round(seconds * rate)) / rate
    tone = sum(np.sin(2 * np.pi * pitch * n * t + n * n) / n for n in range(1, int(3400 / pitch)))
    syllables = np.clip(1.2 * np.sin(2 * np.pi * 2 * t) ** 2, 0, 1)
    sound: np.ndarray = (0.25 * tone * syllables).astype(np.float32)
    return sound


def decoded(data: bytes, kind: str, rate: int) -> np.ndarray:
    """Samples at `rate`, whatever the decoder likes to give (opus: 48 kHz)."""
    if kind == "pcm":
        return np.frombuffer(data, "<i2") / 32768
    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
    with av.open(io.BytesIO(data), format=CONTAINERS[kind]) as container:
        frames = [new for frame in container.decode(audio=0) for new in resampler.resample(frame)]
    frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def loudness(samples: np.ndarray) -> float:
    """RMS in dB of full scale."""
    return float(10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-12))


def energy(samples: np.ndarray) -> float:
    """In dB; silence at the ends changes nothing."""
    return loudness(samples) + float(10 * np.log10(len(samples)))


def pitch_of(samples: np.ndarray, rate: int) -> float:
    """Hz of the strongest frequency."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 20))
    return float(np.argmax(spectrum) * rate / (1 << 20))


def spectral_distance(one: np.ndarray, other: np.ndarray, rate: int) -> float:
    """Mean difference in dB of the long-time spectra in bands of 100 Hz up to 3.4 kHz."""
    return float(np.mean(np.abs(_bands(one, rate) - _bands(other, rate))))


def _bands(samples: np.ndarray, rate: int) -> np.ndarray:
    power = np.abs(np.fft.rfft(samples, 8 * rate)) ** 2  # eight bins to a Hz
    edges = np.arange(100, 3401, 100) * 8
    summed = np.add.reduceat(power[: edges[-1]], edges[:-1])
    levels: np.ndarray = 10 * np.log10(summed + 1e-6)
    return levels
