"""How much of Whisper's window of 30 s the encoder needs: word error rate, time and runaways over policies.

The utterances are those that the gate makes of ../shared/speech, each decoded alone. `library` is
`WhisperModel.transcribe` as its users call it, with the same model, beam and threads; `sttd` is what the daemon does,
with its second try at 30 s where the first looks wrong. The other rows have no second try.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.corpus import Missing, clips, optional
from bench.gate_wer import clip_utterances, normalized, whisper
from bench.report import Section, machine, table
from sttd.audio.format import RATE
from sttd.config.config import SessionOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sttd.engines.whisper import FasterWhisperEngine

SHORT_S = 5.0
EVERY = 3  # recording, unless all are wanted
RUNAWAY = 2.4  # compression ratio of a text that repeats itself


@dataclass(frozen=True)
class Policy:
    """Which window: the audio and `margin_s`, at least `min_s`; padded with zeros or with silence; tokens capped."""

    margin_s: float
    min_s: float
    silence: bool = False
    capped: bool = True

    @property
    def name(self) -> str:
        kind = ("silence" if self.silence else "zeros") + ("" if self.capped else ", tokens not capped")
        return f"+ {self.margin_s:g} s, at least {self.min_s:g} s; {kind}"

    def decode(self, engine: FasterWhisperEngine, audio: NDArray[np.float32], language: str) -> str:
        length = len(audio) / RATE
        model = engine.whole.fitted(self.margin_s, self.min_s)
        if self.silence:
            audio = np.pad(audio, (0, int((model.window(length) - length) * RATE)))
        cap = {"max_new_tokens": int(20 + 12 * length)} if self.capped and length < 15 else {}
        found = model.transcribe(
            audio,
            language=language,
            temperature=0.0,
            without_timestamps=True,
            condition_on_previous_text=False,
            **cap,
        )[0]
        return " ".join(segment.text.strip() for segment in found)


POLICIES = (
    Policy(0, 30),
    Policy(2, 8),
    Policy(2, 10),
    Policy(2, 10, capped=False),
    Policy(2, 10, silence=True),
    Policy(2, 12),
    Policy(3, 12),
    Policy(3, 15),
)


def library(engine: FasterWhisperEngine, audio: NDArray[np.float32], language: str) -> str:
    found = engine.whole.transcribe(audio, language=language, beam_size=5)[0]
    return " ".join(segment.text.strip() for segment in found)


def daemon(engine: FasterWhisperEngine, audio: NDArray[np.float32], language: str) -> str:
    pcm = np.round(audio * 32768).astype(np.int16).tobytes()
    return engine.transcribe(pcm, SessionOptions(language=language)).text


def run(*, full: bool) -> Section:
    jiwer = optional("jiwer")
    if jiwer is None:
        raise Missing("the package jiwer")
    parts = [compared(jiwer, "tiny.en", ("en", "digits"), full=full)]
    try:
        parts.append(compared(jiwer, "base", ("en", "other"), full=full))
    except Missing as missing:
        parts.append(f"base: missing: {missing}")
    return Section(
        "whisper_context",
        "Whisper's window",
        f"{machine('faster-whisper', 'ctranslate2')}. int8; beam 5; one worker.\n\n" + "\n\n".join(parts),
    )


def compared(jiwer: Any, model: str, folders: Sequence[str], *, full: bool) -> str:
    engine = whisper(model, workers=1, threads=1)
    step = 1 if full else EVERY
    work = [
        (clip.transcript, clip.language, [as_float(one.pcm) for one in clip_utterances(clip, SessionOptions())])
        for folder in folders
        for clip in clips(folder, "speech")[::step]
        if clip.transcript and (clip.language in engine.languages or not clip.language)
    ]
    contestants: dict[str, Any] = {"library": library, "sttd": daemon} | {one.name: one.decode for one in POLICIES}
    rows, baseline = [], None
    for name, decode in contestants.items():
        wrong = words = runaways = 0
        times: list[tuple[float, float]] = []
        for transcript, language, audios in work:
            texts = []
            for audio in audios:
                started = time.perf_counter()
                texts.append(decode(engine, audio, language or "en"))
                times.append((len(audio) / RATE, time.perf_counter() - started))
                runaways += ran_away(texts[-1], len(audio) / RATE)
            found = jiwer.process_words(normalized(transcript), normalized(" ".join(texts)))
            wrong += found.deletions + found.substitutions + found.insertions
            words += found.deletions + found.substitutions + found.hits
        short = [took for length, took in times if length <= SHORT_S]
        baseline = baseline or times
        ratios = [mine[1] / theirs[1] for mine, theirs in zip(times, baseline, strict=True) if mine[0] <= SHORT_S]
        everything = sum(took for _, took in times) / sum(took for _, took in baseline)
        rows.append(
            [
                name,
                f"{100 * wrong / words:.2f} %",
                f"{1000 * median(short):.0f} [{1000 * min(short):.0f}-{1000 * max(short):.0f}]",
                f"{median(ratios):.2f}",
                f"{everything:.2f}",
                str(runaways),
            ]
        )
    header = ["policy", "word error rate", "ms up to 5 s", "ratio up to 5 s", "ratio of all", "runaways"]
    count, brief = len(baseline or ()), sum(length <= SHORT_S for length, _ in baseline or ())
    return f"{model}: {len(work)} recordings, {count} utterances, {brief} of up to 5 s.\n\n{table(header, rows)}"


def ran_away(text: str, seconds: float) -> bool:
    import zlib

    data = text.encode()
    return len(data) > 40 and (len(data) / len(zlib.compress(data)) > RUNAWAY or len(data) > 60 + 40 * seconds)


def as_float(pcm: bytes) -> NDArray[np.float32]:
    return np.multiply(np.frombuffer(pcm, np.int16), 1 / 32768, dtype=np.float32)
