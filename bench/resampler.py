"""Resampling to 16 kHz s16: what a sample costs, and what becomes of tones.

Cost: ns of processor time per input sample, s16 in and out, streamed in pieces of 20 and 100 ms; ratios are to soxr's
HQ stream on s16, round by round. Quality: see tones.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bench import tones
from bench.corpus import optional
from bench.plot import Axis, Curve, svg
from bench.report import NOT_INSTALLED, Section, machine, table
from bench.timing import ROUNDS, Timing, compare
from sttd.audio.format import RATE, converter

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from bench.tones import Convert

RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 192000)
LIMITS = {(48000, 20): 0.40, (48000, 100): 0.75, (44100, 20): 0.6, (44100, 100): 1.0}
SOXR = "soxr HQ"
LOWEST = -120  # dB, of the plot: silence is drawn there


def run(*, full: bool) -> Section:  # noqa: ARG001 (nothing here is a sample of more)
    text = f"""{machine("soxr", "scipy", "numpy")}.

Cost in ns per input sample, median [min-max] of {ROUNDS} rounds, and its ratio to soxr's.

{cost_table()}

Quality, of s16 output. Tones have 0.9 of full scale and come as float, to soxr as s16.

- Pass band: largest deviation from 0 dB up to 0.9 of the lower Nyquist frequency.
- Stop band: the loudest output, against the tone, for tones from 8.4 kHz to the input's Nyquist frequency; from rates
  under 16 kHz, what tones of the pass band leave beside themselves. `silent`: every sample is zero.
- Alias: silence comes of rounding; so this is the loudest alias (or image) that is found once noise of 0.6 steps is
  added to the tone.
- S/N: of tones just below full scale, as float / as s16. Rounding to s16 once allows 98.1 dB for tones without a common
  period with the rate; rounding at input and output 95.1, or more where a filter takes part of the first one's noise.
- Held back: the most that a stream in pieces of 20 ms kept to itself.

{quality_table()}

![Frequency response](plots/resampler-response.svg)"""
    return Section("resampler", "Resampler", text, {"resampler-response.svg": response_plot()})


def stream(rate: int, pieces: list[bytes]) -> Callable[[], object]:
    """Feeds one endless stream of sttd's, all pieces a call."""
    feed = converter(rate, "pcm_s16le", 1).feed
    return lambda: [feed(piece) for piece in pieces]


def soxr_stream(rate: int, pieces: list[bytes]) -> Callable[[], object]:
    feed = soxr_feed(rate)
    arrays = [np.frombuffer(piece, np.int16) for piece in pieces]
    return lambda: [feed(array) for array in arrays]


def soxr_feed(rate: int) -> Callable[[NDArray[np.int16]], NDArray[np.int16]]:
    feed: Callable[[NDArray[np.int16]], NDArray[np.int16]]
    feed = optional("soxr").ResampleStream(rate, RATE, 1, dtype="int16", quality="HQ").resample_chunk
    return feed


def scipy_pieces(rate: int, pieces: list[bytes]) -> Callable[[], object]:
    """Piece by piece, with errors at every seam: scipy has no streaming form."""
    resample, divisor = optional("scipy.signal").resample_poly, math.gcd(rate, RATE)
    arrays = [np.frombuffer(piece, np.int16) for piece in pieces]
    up, down = RATE // divisor, rate // divisor
    return lambda: [np.rint(resample(array.astype(np.float32), up, down)).astype(np.int16) for array in arrays]


def interp_pieces(rate: int, pieces: list[bytes]) -> Callable[[], object]:
    """Straight lines between samples, no filter against aliases."""
    arrays = [np.frombuffer(piece, np.int16) for piece in pieces]
    time = np.arange(len(arrays[0]))
    wanted = np.arange(len(arrays[0]) * RATE // rate) * (rate / RATE)
    return lambda: [np.interp(wanted, time, array).astype(np.int16) for array in arrays]


def cost_table() -> str:
    rows = []
    for rate in (8000, 22050, 44100, 48000, 96000):
        for milliseconds in (20, 100):
            noise = np.random.default_rng(1).normal(0, 3000, 2 * rate).astype(np.int16)
            size = 2 * rate * milliseconds // 1000
            pieces = [noise.tobytes()[at : at + size] for at in range(0, 4 * rate, size)]
            contestants = {"sttd": stream(rate, pieces)}
            if optional("soxr"):
                contestants[SOXR] = soxr_stream(rate, pieces)
            if (rate, milliseconds) == (48000, 100):
                contestants["np.interp, no filter"] = interp_pieces(rate, pieces)
                if optional("scipy.signal"):
                    contestants["scipy resample_poly"] = scipy_pieces(rate, pieces)
            timings = compare(contestants, units=len(noise))
            rows += [cost_row(rate, milliseconds, name, timings) for name in timings if name != SOXR]
    return table(["from kHz", "pieces", "contestant", "ns per sample", SOXR, "ratio", "at most"], rows)


def cost_row(rate: int, milliseconds: int, name: str, timings: dict[str, Timing]) -> list[str]:
    reference = timings.get(SOXR)
    limit = LIMITS.get((rate, milliseconds)) if name == "sttd" else None
    return [
        f"{rate / 1000:g}",
        f"{milliseconds} ms",
        name,
        timings[name].text(),
        reference.text() if reference else NOT_INSTALLED,
        f"{timings[name].over(reference):.2f}" if reference else "",
        f"{limit:.2f}" if limit else "",
    ]


def quality_table() -> str:
    header = ["from kHz", "contestant", "pass band, dB", "-3 dB, Hz", "stop band, dB", "alias, dB"]
    header += ["S/N 997 Hz, dB", "S/N 1 kHz, dB", "DC, steps", "delay, ms", "held back, ms"]
    rows = []
    for rate in RATES:
        one = converter(rate, "pcm_s16le", 1)
        times = [f"{1000 * one.delay:.2f}", f"{tones.held_back(one.feed, rate):.1f}"]
        floats, s16 = tones.ours(rate, "pcm_f32le"), tones.ours(rate, "pcm_s16le")
        rows.append([f"{rate / 1000:g}", "sttd", *quality(rate, floats, s16), *times])
        if rate in (44100, 48000) and optional("soxr"):
            times = ["", f"{tones.held_back(soxr_feed(rate), rate):.1f}"]
            rows.append([f"{rate / 1000:g}", f"{SOXR} s16", *quality(rate, None, tones.soxr_s16(rate)), *times])
    rows.append(["goal", "", "0.01", "7600", "-90", "", "", "96", "0", "20", ""])
    return table(header, rows)


def quality(rate: int, floats: Convert | None, s16: Convert) -> list[str]:
    """The cells from `pass band` to `DC`; `floats` takes float input, where there is such a thing."""
    convert = floats or s16
    half = tones.half_power(convert, rate)
    loudest = tones.stop_band(convert, rate) if rate != RATE else None

    def noise(frequency: float) -> str:
        of_floats = f"{tones.signal_to_noise(floats, rate, frequency):.1f}" if floats else "-"
        return f"{of_floats} / {tones.signal_to_noise(s16, rate, frequency):.1f}"

    return [
        f"{tones.pass_band(convert, rate):.4f}",
        f"{half:.0f}" if half else "-",
        "-" if loudest is None else "silent" if loudest == tones.SILENT else f"{loudest:.1f}",
        "-" if loudest is None else f"{tones.images(convert, rate):.1f}",
        noise(997),
        noise(1000),
        f"{tones.offset(s16, rate):.3f}",
    ]


def response_plot() -> str:
    """Level of the output for tones up to 24 kHz at 48 kHz."""
    rate = 48000
    every = np.concatenate([np.arange(30, 9000, 50), np.arange(9030, 24000, 100)])

    def line(label: str, measure: Callable[[Convert, int, float], float], convert: Convert, lowest: int = 0) -> Curve:
        heard = every[every >= lowest]
        return Curve(label, (heard / 1000).tolist(), [measure(convert, rate, tone) for tone in heard])

    floats = tones.ours(rate, "pcm_f32le")
    lines = [line("sttd", tones.level, floats), line("sttd, alias found in noise", tones.image, floats, 8400)]
    if optional("soxr"):
        lines.append(line(f"{SOXR} on s16", tones.level, tones.soxr_s16(rate)))
    x = Axis("frequency of the tone, kHz", range(0, 26, 2))
    y = Axis("level of the s16 output, dB", range(LOWEST, 20, 20))
    return svg("48 kHz to 16 kHz: what comes out", x, y, lines)
