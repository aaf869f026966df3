"""What a resampler to 16 kHz makes of one tone, once its filter has settled. Levels are in dB."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.corpus import FULL_SCALE, optional, rms
from sttd.audio.format import RATE, converter

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Convert = Callable[[Floats], Floats]

AMPLITUDE = 0.9
LOUDEST = 0.999  # the filter's ripple must not make it saturate
SETTLE = RATE // 16  # output samples that are left out at both ends
SILENT = -math.inf


def ours(rate: int, encoding: str) -> Convert:
    """A whole signal, 1.0 being full scale, through sttd as s16 or float."""

    def convert(signal: Floats) -> Floats:
        one = converter(rate, encoding, 1)
        data = signal.astype(np.float32) if encoding == "pcm_f32le" else quantized(signal)
        return np.frombuffer(one.feed(data.tobytes()) + one.flush(), np.int16) / FULL_SCALE

    return convert


def soxr_s16(rate: int) -> Convert:
    """The same through soxr's HQ stream on s16."""

    def convert(signal: Floats) -> Floats:
        one = optional("soxr").ResampleStream(rate, RATE, 1, dtype="int16", quality="HQ")
        return np.asarray(one.resample_chunk(quantized(signal), last=True) / FULL_SCALE)

    return convert


def quantized(signal: Floats) -> NDArray[np.int16]:
    return np.clip(np.rint(signal * FULL_SCALE), -32768, 32767).astype(np.int16)


def sine(rate: int, frequency: float, amplitude: float = AMPLITUDE, seconds: float = 0.3) -> Floats:
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate + 0.1)


def through(convert: Convert, signal: Floats) -> Floats:
    return convert(signal)[SETTLE:-SETTLE]


def fit(output: Floats, *frequencies: float) -> tuple[float, float, float]:
    """The tones that come closest: the first one's amplitude, the mean beside them, and the r.m.s. of the rest."""
    phases = [2 * np.pi * frequency / RATE * np.arange(len(output)) for frequency in frequencies]
    waves = [wave for phase in phases for wave in (np.sin(phase), np.cos(phase))]
    basis = np.stack([*waves, np.ones(len(output))], axis=1)
    parts = np.linalg.lstsq(basis, output, rcond=None)[0]
    return float(np.hypot(parts[0], parts[1])), float(parts[-1]), rms(output - basis @ parts)


def decibels(ratio: float) -> float:
    return 20 * math.log10(ratio) if ratio > 0 else SILENT


def gain(convert: Convert, rate: int, frequency: float) -> float:
    return decibels(fit(through(convert, sine(rate, frequency)), frequency)[0] / AMPLITUDE)


def level(convert: Convert, rate: int, frequency: float) -> float:
    """All that comes out, against the tone that went in."""
    return decibels(rms(through(convert, sine(rate, frequency))) / (AMPLITUDE / math.sqrt(2)))


def passing(rate: int) -> Floats:
    """Tones of the pass band: to 0.9 of the lower Nyquist frequency."""
    return np.linspace(50, 0.45 * min(rate, RATE), 40)


def stopped(rate: int) -> Floats:
    """Tones that must not pass: from 8.4 kHz to the input's Nyquist frequency."""
    return np.concatenate([[8400], np.arange(8430, min(rate / 2, 24000), 100), np.arange(24130, rate / 2, 400)])


def pass_band(convert: Convert, rate: int) -> float:
    """Largest deviation from 0 dB."""
    return max(abs(gain(convert, rate, frequency)) for frequency in passing(rate))


def half_power(convert: Convert, rate: int) -> float | None:
    """The frequency that is passed with -3 dB, in Hz."""
    low, high = 0.45 * min(rate, RATE), 0.499 * min(rate, RATE)
    if gain(convert, rate, high) > -3:
        return None
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if gain(convert, rate, middle) > -3 else (low, middle)
    return low


def stop_band(convert: Convert, rate: int) -> float:
    """The loudest that comes out of tones that must not pass; below 16 kHz what the others leave beside themselves."""
    if rate > RATE:
        return max(level(convert, rate, frequency) for frequency in stopped(rate))
    spurious = max(fit(through(convert, sine(rate, frequency)), frequency)[2] for frequency in passing(rate))
    return decibels(spurious / (AMPLITUDE / math.sqrt(2)))


def image(convert: Convert, rate: int, frequency: float) -> float:
    """Level of a tone's alias (or image, from rates below 16 kHz), which rounding to s16 alone would hide or distort.

    Noise of 0.6 steps of s16 below 8 kHz keeps the rounding linear; it hides what lies below -115 dB.
    """
    # An alias is alone at the output; an image has the tone itself beside it.
    wanted = (abs((frequency + RATE / 2) % RATE - RATE / 2),) if rate > RATE else (rate - frequency, frequency)
    signal = sine(rate, frequency)
    noise = np.random.default_rng(0).normal(0, 0.6 * math.sqrt(max(1, rate / RATE)) / FULL_SCALE, len(signal))
    return decibels(fit(through(convert, signal + noise), *wanted)[0] / AMPLITUDE)


def images(convert: Convert, rate: int) -> float:
    """The loudest of them."""
    tones = stopped(rate) if rate > RATE else [tone for tone in passing(rate) if rate - tone < RATE / 2]
    return max(image(convert, rate, tone) for tone in tones)


def signal_to_noise(convert: Convert, rate: int, frequency: float) -> float:
    """Of a tone just below full scale."""
    amplitude, _, rest = fit(through(convert, sine(rate, frequency, LOUDEST, seconds=1.0)), frequency)
    return decibels(amplitude / math.sqrt(2) / rest)


def offset(convert: Convert, rate: int) -> float:
    """The mean beside a tone just below full scale, in steps of s16."""
    return FULL_SCALE * abs(fit(through(convert, sine(rate, 997, LOUDEST, seconds=1.0)), 997)[1])


def held_back(feed: Callable[[Any], bytes | NDArray[np.int16]], rate: int) -> float:
    """In ms: the most that a stream of s16 in pieces of 20 ms kept to itself."""
    piece, out, held = np.zeros(rate // 50, np.int16), 0, 0.0
    for count in range(1, 101):
        made = feed(piece)
        out += len(made) // 2 if isinstance(made, bytes) else len(made)
        held = max(held, count * (rate // 50) / rate - out / RATE)
    return 1000 * held
