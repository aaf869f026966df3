"""Guess whether audio is in another format than its client announced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sttd.audio.format import RATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

FAINT = 150.0
"""Level (r.m.s., in units of s16) below which a pitch may come from mains hum."""


def misread(data: bytes, sample_rate: int, channels: int) -> list[str]:
    """Return at most one guess about bytes that were announced as s16: each guess rules out the others."""
    data = data[: len(data) // (4 * channels) * 4 * channels]
    if _plausible_floats(np.frombuffer(data, "<f4")):
        return ["this looks like 32-bit float samples: say so with encoding=pcm_f32le"]
    frames = np.frombuffer(data, "<i2").reshape(-1, channels).astype(np.float64)
    swapped = np.frombuffer(data, ">i2").reshape(-1, channels).astype(np.float64)
    if abs(_smoothness(frames)) < 0.3 and _smoothness(swapped) > 0.6:
        return ["the bytes of the samples look swapped (big-endian): send little-endian ones"]
    if sample_rate <= RATE and _too_slow(frames.mean(axis=1), sample_rate):
        return [f"this sounds like 44.1 or 48 kHz audio announced as {sample_rate} Hz: say so with sample_rate=48000"]
    return []


def _plausible_floats(values: NDArray[np.float32]) -> bool:
    """Whether bytes are float samples. Speech in s16, read as floats, is denormal or NaN every few milliseconds."""
    values = values[values != 0]
    if len(values) < 4000:
        return False
    with np.errstate(all="ignore"):
        size = np.abs(values)
        usual = (size < 4) & (size > 1e-9)
        return bool(usual.mean() > 0.98 and 1e-5 < np.sqrt(np.mean(size[usual] ** 2)) < 2)


def _smoothness(frames: NDArray[np.float64]) -> float:
    """Return the correlation of neighbouring samples: high for sound, low for bytes in the wrong order."""
    frames = frames - frames.mean(axis=0)
    power = float((frames**2).sum())
    return float((frames[1:] * frames[:-1]).sum()) / power if power else 1.0


def _too_slow(samples: NDArray[np.float64], rate: int) -> bool:
    """Whether speech plays at about a third of its speed: deeper than any voice, or deep and without any hiss.

    The pitch is the median over loud stretches of 128 ms; in each, the first high peak of the autocorrelation counts.
    """
    size = rate * 128 // 1000
    stretches = samples[: len(samples) // size * size].reshape(-1, size)
    loud = stretches.std(axis=1)
    stretches = stretches[loud > 0.25 * np.percentile(loud, 95)] if len(loud) else stretches
    window = np.hanning(size)
    power = np.abs(np.fft.rfft((stretches - stretches.mean(axis=1, keepdims=True)) * window, 2 * size)) ** 2
    frequency = np.arange(size + 1) * rate / (2 * size)
    periodic = np.fft.irfft(power * ((frequency > 20) & (frequency < 1000)))[:, :size]
    decay = np.fft.irfft(np.abs(np.fft.rfft(window, 2 * size)) ** 2)[:size]
    periodic /= np.maximum(periodic[:, :1], 1e-9) * decay / decay[0] + 1e-9
    low, high = rate // 400, rate // 24
    pitches = []
    for row in periodic[:, low:high]:
        peaks = np.flatnonzero((row[1:-1] >= 0.9 * row.max()) & (row[1:-1] >= row[:-2]) & (row[1:-1] >= row[2:]))
        if row.max() > 0.6 and len(peaks):
            pitches.append(rate / (low + 1 + peaks[0]))
    if len(pitches) < 5 or samples.std() < FAINT:
        return False
    pitch = float(np.median(pitches))
    spread = float(np.percentile(pitches, 75) - np.percentile(pitches, 25)) / pitch
    if not 0.03 < spread < 0.6:
        return False  # a voice's pitch varies a little; the pitch of hum is constant, and clicks have no stable pitch
    total = power.sum(axis=0)
    hiss = total[(frequency > 2800) & (frequency < 4000)].sum() / (total[frequency < 2800].sum() + 1e-9)
    return bool((pitch < 70 and hiss < 1.2e-3) or (pitch < 120 and hiss < 6e-5))
