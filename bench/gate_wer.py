"""What the gate costs in words: word error rate of Whisper tiny.en with the gate on minus with it off.

Each recording of ../shared/speech/en goes through the daemon's own path, `Pipeline` and `FasterWhisperEngine`, an
utterance at a time. With the gate off a recording is one utterance. The decoder's second tries at a doubtful utterance
are random, so two runs differ a little.
"""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bench.corpus import ROOT, Clip, Missing, clips, optional
from bench.heard import Utterance, utterances
from bench.report import Section, machine, table
from sttd.config.config import Config, FasterWhisperConfig, ModelsConfig, SessionOptions
from sttd.engines.whisper import FasterWhisperEngine
from sttd.errors import ModelError, ModelMissing
from sttd.models.store import resolve
from sttd.recognizers.batch import CONTEXT_CHARACTERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

EVERY = 4  # recording, unless all are wanted
RESAMPLES = 2000


def run(*, full: bool) -> Section:
    jiwer = optional("jiwer")
    if jiwer is None:
        raise Missing("the package jiwer")
    engine, recordings = whisper(), clips("en", "speech")
    if not full:
        recordings = recordings[::EVERY]
    rows, wrong = [], []
    words = np.array([len(normalized(clip.transcript).split()) for clip in recordings])
    for gate in (False, True):
        options = SessionOptions(gate=gate)
        with ThreadPoolExecutor(engine.workers) as pool:
            texts = list(pool.map(lambda clip, options=options: transcribe(engine, clip, options), recordings))
        each = [
            jiwer.process_words(normalized(clip.transcript), normalized(text))
            for clip, text in zip(recordings, texts, strict=True)
        ]
        counts = [sum(getattr(one, kind) for one in each) for kind in ("deletions", "substitutions", "insertions")]
        wrong.append(np.array([one.deletions + one.substitutions + one.insertions for one in each]))
        rate = f"{100 * wrong[-1].sum() / words.sum():.2f} %"
        rows.append([f"gate {'on' if gate else 'off'}", rate, *map(str, counts)])
    difference, low, high = on_minus_off(wrong[1] - wrong[0], words)
    text = f"""{machine("faster-whisper", "ctranslate2")}; tiny.en, int8, beam 5; {len(recordings)} recordings, \
{words.sum()} words.

{table(["gate", "word error rate", "deleted", "substituted", "inserted"], rows)}

On minus off: {difference:+.2f} points; 95 % of {RESAMPLES} draws of the recordings lie between {low:+.2f} and \
{high:+.2f}."""
    return Section("gate_wer", "Words lost to the gate", text)


def whisper(model_name: str = "tiny.en", workers: int = 0, threads: int = 0) -> FasterWhisperEngine:
    """The daemon's engine with a model from the store that the tests fill, or the one of STTD_MODELS__DIR."""
    folder = os.environ.get("STTD_MODELS__DIR", str(ROOT / ".cache/models"))
    faster_whisper = FasterWhisperConfig(workers=workers, threads=threads)
    config = Config(model=model_name, models=ModelsConfig(dir=folder), faster_whisper=faster_whisper)
    if optional("faster_whisper") is None:
        raise Missing("the package faster-whisper")
    try:
        model = resolve(config)
        engine = FasterWhisperEngine(config, model.path, model.languages)
        engine.load()
    except (ModelMissing, ModelError) as error:
        raise Missing(str(error)) from None
    return engine


def transcribe(engine: FasterWhisperEngine, clip: Clip, options: SessionOptions) -> str:
    """The text of a recording, streamed in pieces of 100 ms."""
    said = ""
    for utterance in clip_utterances(clip, options):
        found = engine.transcribe(
            utterance.pcm, options, context=said[-CONTEXT_CHARACTERS:], confidence=utterance.confidence
        )
        said = f"{said} {found.text}".strip()
    return said


def clip_utterances(clip: Clip, options: SessionOptions) -> Iterator[Utterance]:
    return utterances(clip.samples, replace(options, sample_rate=clip.rate, channels=clip.samples.shape[1]))


def normalized(text: str) -> str:
    """Lower case without punctuation, for comparing transcripts."""
    return " ".join(re.sub(r"[^\w' ]", "", text.lower().replace("-", " ")).split())


def on_minus_off(more_errors: NDArray[np.int64], words: NDArray[np.int64]) -> Sequence[float]:
    """In points: the difference of the word error rates, and its 2.5 and 97.5 % quantiles over drawn recordings."""
    draws = np.random.default_rng(1).integers(0, len(words), (RESAMPLES, len(words)))
    drawn = 100 * more_errors[draws].sum(axis=1) / words[draws].sum(axis=1)
    return float(100 * more_errors.sum() / words.sum()), *map(float, np.quantile(drawn, [0.025, 0.975]))
