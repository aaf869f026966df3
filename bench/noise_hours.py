"""Hours of noise: how much text comes of it, and what the thresholds cost in words.

Each clip of ../shared/speech/noise is looped and goes through `Pipeline` and `FasterWhisperEngine`, as with a
microphone that is open all day. Against it stand the single digits of ../shared/speech/digits that get no text.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from bench.corpus import at_16k, clips
from bench.gate_wer import whisper
from bench.heard import text_of, utterances
from bench.plot import Axis, Curve, svg
from bench.report import Section, machine, table
from bench.short_words import conditions
from sttd.audio.format import RATE
from sttd.config.config import SessionOptions
from sttd.engines import evidence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.corpus import Clip, Pcm
    from sttd.engines.whisper import FasterWhisperEngine

LOOP_S, QUICK_S = 600, 30
NEVER = (1.0, 0.0)
THRESHOLDS = (0.3, 0.5, 0.7, 0.8)
AN_HOUR = 2
AS_IT_IS: dict[str, Any] = {"LONG_S": evidence.LONG_S}
BEFORE: dict[str, Any] = {
    "DOUBTS_IF_LONG": NEVER,
    "DOUBTS_IF_UNSURE": (NEVER,),
    "DOUBTS_IF_REPEATED": NEVER,
    "DOUBTS_OF_WORDS": evidence.DOUBTS,
    "STOCK_NO_SPEECH": 1.0,
}
"""Of the module evidence: what makes it the rule that sttd had before."""


def run(*, full: bool) -> Section:
    engine, noises = whisper(), clips("noise", "noise")
    options, seconds = SessionOptions(), LOOP_S if full else QUICK_S
    with ThreadPoolExecutor(engine.workers) as pool:
        found = list(zip(noises, pool.map(partial(listen, engine, options, seconds), noises), strict=True))
    hours = len(noises) * seconds / 3600
    texts = sum(len(texts) for _, (_, texts) in found)
    plots: dict[str, str] = {}
    rows = [
        [
            clip.name,
            str(woken),
            str(len(heard)),
            f"{len(heard) * 3600 / seconds:.0f}",
            ", ".join(f"{text} ({count})" for text, count in Counter(heard).most_common(3)),
        ]
        for clip, (woken, heard) in found
        if woken
    ]
    text = f"""{machine("faster-whisper", "ctranslate2")}; tiny.en, int8, beam 5.

{len(noises)} clips, each looped for {seconds} s: {hours:.1f} hours. {sum(bool(heard) for _, (_, heard) in found)} \
of the clips give text, {texts} texts in all, **{texts / hours:.1f} an hour** (goal: at most {AN_HOUR}). Those that \
wake the recognizer:

{table(["clip", "utterances", "with a text", "texts an hour", "which"], rows)}

Somebody counts in before the guitar of `pyroom-guitar-44k`: Whisper base hears "One, two, three, four." there as \
well, and Silero hears a voice. Those texts are right, but they are counted.

### Words against noise

{trade_off(engine, noises, plots, full=full)}"""
    return Section("noise_hours", "Hours of noise", text, plots)


def listen(engine: FasterWhisperEngine, options: SessionOptions, seconds: int, clip: Clip) -> tuple[int, list[str]]:
    """How many utterances the gate finds in a looped noise, and the texts of those that have one."""
    texts = [
        engine.transcribe(utterance.pcm, options, confidence=utterance.confidence).text
        for utterance in utterances(looped(clip, seconds), options)
    ]
    return len(texts), [text for text in texts if text]


def looped(clip: Clip, seconds: int) -> Pcm:
    return np.resize(at_16k(clip), seconds * RATE)


def trade_off(engine: FasterWhisperEngine, noises: Sequence[Clip], plots: dict[str, str], *, full: bool) -> str:
    """Words without text against texts of a minute of each noise: for thresholds of the gate, and without evidence."""
    digits = [at_16k(clip) for clip in clips("digits", "digit")][:: 2 if full else 6]
    words = [word for name in ("as it is", "in hiss of 30 steps") for word in conditions(digits)[name]]
    rows = []
    curves = []
    for name, constants in (("as it is", AS_IT_IS), ("as it was", BEFORE)):
        lost_shares, rates = [], []
        for threshold in THRESHOLDS if constants is AS_IT_IS else THRESHOLDS[1:4:2]:
            options = SessionOptions(threshold=threshold)
            with ThreadPoolExecutor(engine.workers) as pool, patch.multiple(evidence, **constants):
                lost = list(pool.map(partial(text_of, engine, options=options), words)).count("")
                texts = sum(len(heard) for _, heard in pool.map(partial(listen, engine, options, QUICK_S), noises))
            lost_shares.append(100 * lost / len(words))
            rates.append(texts * 3600 / (QUICK_S * len(noises)))
            share, rate = f"{lost_shares[-1]:.1f} %", f"{rates[-1]:.0f}"
            rows.append([name, f"{threshold:g}", f"{lost} of {len(words)}", share, rate])
        curves += [Curve(f"evidence {name}", rates, lost_shares), Curve("", rates, lost_shares, dots=True)]
    top = max(10, *(int(rate / 10 + 1) * 10 for curve in curves for rate in curve.x))
    plots["noise-hours.svg"] = svg(
        f"Words without text against texts from noise, thresholds {THRESHOLDS[0]:g} to {THRESHOLDS[-1]:g}",
        Axis("texts an hour of noise", [top * tick / 5 for tick in range(6)]),
        Axis("words without text, %", [0, 5, 10, 15, 20, 25, 30]),
        curves,
    )
    return f"""Single digits (as they are, and in hiss of 30 steps), and half a minute of each noise. Evidence \
`as it was`: no-speech and log probability alone.

{table(["evidence", "threshold", "words without text", "share", "texts an hour of noise"], rows)}

![Words against noise](plots/noise-hours.svg)"""
