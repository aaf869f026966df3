"""Single words: how many get no text, and how many the wrong one, with the gate on and off.

The 66 digits of ../shared/speech/digits, as they are (cut tightly) and in a second of silence or noise on either side,
each a stream of its own that ends with eof, through `Pipeline` and `FasterWhisperEngine`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from bench.corpus import Missing, at_16k, clips, optional, rms
from bench.gate_wer import normalized, whisper
from bench.heard import text_of
from bench.report import Section, machine, table
from sttd.audio.format import RATE
from sttd.config.config import SessionOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from bench.corpus import Pcm

EVERY = 6
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FIGURES = {str(figure): word for figure, word in enumerate(WORDS)}
SOUNDS_LIKE = {"to": "two", "too": "two", "for": "four", "ate": "eight", "won": "one", "oh": "zero"}


def run(*, full: bool) -> Section:
    jiwer = optional("jiwer")
    if jiwer is None:
        raise Missing("the package jiwer")
    engine, chosen = whisper(), clips("digits", "digit")[:: 1 if full else EVERY]
    said = [clip.transcript for clip in chosen]
    rows = []
    for name, recordings in conditions([at_16k(clip) for clip in chosen]).items():
        missing, rates = [], []
        for gate in (True, False):
            with ThreadPoolExecutor(engine.workers) as pool:
                texts = list(pool.map(partial(text_of, engine, options=SessionOptions(gate=gate)), recordings))
            missing.append(texts.count(""))
            rates.append(100 * jiwer.wer(list(map(spelled, said)), list(map(spelled, texts))))
        rows.append([name, *map(str, missing), *(f"{rate:.1f} %" for rate in rates), f"{rates[0] - rates[1]:+.1f}"])
    header = ["the word", "without text", "gate off", "word error rate", "gate off", "points more"]
    text = f"""{machine("faster-whisper", "ctranslate2")}; tiny.en, int8, beam 5; {len(chosen)} single digits.

{table(header, rows)}

Goal: at most one more without text than with the gate off, and at most 1.5 points more. A word that sounds the same \
(`to` for `two`) counts as right."""
    return Section("short_words", "Single words", text)


def conditions(words: Sequence[Pcm]) -> Mapping[str, Sequence[Pcm]]:
    rng = np.random.default_rng(4)
    noises = [at_16k(clip).astype(float) for clip in clips("noise", "noise") if not clip.babble]

    def within(word: Pcm, background: NDArray[np.float64]) -> Pcm:
        background[RATE : RATE + len(word)] += word
        return np.clip(np.rint(background), -32768, 32767).astype(np.int16)

    def steady(word: Pcm, level: float) -> Pcm:
        return within(word, rng.standard_normal(len(word) + 2 * RATE) * level)

    def noisy(number: int, word: Pcm, decibels: float) -> Pcm:
        noise = np.resize(noises[number % len(noises)], len(word) + 2 * RATE)
        return within(word, noise * rms(word) / max(1.0, rms(noise)) * 10 ** (-decibels / 20))

    return {
        "as it is": words,
        **{
            f"in {name}": [steady(word, level) for word in words]
            for name, level in (("silence", 0), ("hiss of 5 steps", 5), ("hiss of 30 steps", 30))
        },
        **{
            f"in noise, {decibels} dB": [noisy(number, word, decibels) for number, word in enumerate(words)]
            for decibels in (20, 10)
        },
    }


def spelled(text: str) -> str:
    """Digits as words, and one way to write what sounds the same."""
    words = normalized(text).split()
    return " ".join(SOUNDS_LIKE.get(word, FIGURES.get(word, word)) for word in words)
