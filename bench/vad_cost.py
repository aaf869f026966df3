"""What a voice gate costs: us of processor time per 20 ms of audio, and the course of it over a recording."""

from __future__ import annotations

from statistics import median
from time import perf_counter_ns
from typing import TYPE_CHECKING

import numpy as np

from bench.corpus import FRAME, hiss, sample
from bench.detectors import Detector, Gate, Silero, silero, webrtc
from bench.plot import Axis, Curve, svg
from bench.report import NOT_INSTALLED, table
from bench.timing import ROUNDS, compare
from sttd.audio.format import RATE

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.corpus import Pcm

OTHERS = ("webrtcvad 3", Silero.name)
LIMITS = {"speech": 10, "digital silence": 0.6, "noise of one step": 0.6}


def detectors() -> list[Detector]:
    """One of each kind: webrtcvad's modes cost the same."""
    return [Gate(), *webrtc()[3:], *filter(None, [silero()])]


def pieces(detector: Detector, pcm: Pcm) -> list[bytes]:
    data, size = pcm.tobytes(), 2 * detector.samples
    return [data[at : at + size] for at in range(0, len(data) - size + 1, size)]


def stream(detector: Detector, pcm: Pcm) -> Callable[[], object]:
    """Feeds one endless stream, all of `pcm` a call."""
    call, parts = detector.bare(), pieces(detector, pcm)
    return lambda: [call(part) for part in parts]


def cost_table() -> str:
    """A ratio is sttd's cost over the other's, round by round."""
    speech = sample()
    signals = {
        "speech": speech,
        "digital silence": np.zeros_like(speech),
        "noise of one step": hiss(len(speech), np.random.default_rng(1)),
    }
    rows = []
    for signal, pcm in signals.items():
        contestants = {one.name: stream(one, pcm) for one in detectors()}
        timings = compare(contestants, units=len(pcm) // FRAME)
        ours = timings[Gate.name]
        row = [signal, ours.text(1000), f"{LIMITS[signal]:g}"]
        for name in OTHERS:
            theirs = timings.get(name)
            row += [theirs.text(1000), f"{ours.over(theirs):.3f}"] if theirs else [NOT_INSTALLED, ""]
        rows.append(row)
    header = ["signal", "sttd", "at most", *(cell for name in OTHERS for cell in (name, "ratio"))]
    return table(header, rows)


def cost_plot() -> str:
    """Cost of each call, per 20 ms of audio: median of the rounds."""
    quiet, speech = np.zeros(RATE, np.int16), sample()
    pcm = np.concatenate([quiet, speech, hiss(RATE, np.random.default_rng(1)), quiet])
    curves = []
    for detector in detectors():
        parts = pieces(detector, pcm)
        rounds = [times(detector.bare(), parts) for _ in range(ROUNDS)]
        share = FRAME / detector.samples / 1000
        at = [number * detector.samples / RATE for number in range(len(parts))]
        curves.append(Curve(detector.name, at, [share * median(each) for each in zip(*rounds, strict=True)]))
    x = Axis("time, s: a second of silence, speech, a second of noise of one step, and of silence", range(9))
    y = Axis("us per 20 ms of audio", (0.1, 1, 10, 100, 1000), log=True)
    return svg("Cost of the voice gate", x, y, curves)


def times(call: Callable[[bytes], object], parts: list[bytes]) -> list[int]:
    """ns of each call, the clock's own some 50 ns among them."""
    found = []
    for part in parts:
        start = perf_counter_ns()
        call(part)
        found.append(perf_counter_ns() - start)
    return found
