"""Does the gate hear a word after any time of anything? Single words after half a second to eight hours of quiet.

Every frame goes through the gate, as in a microphone that is open all day. A word is found if the gate calls some of it
speech, and begins an utterance if the endpointer, with the defaults, opens one. Words: the single digits of
../shared/speech/digits, and the first 0.6 s of speech, by Silero's judgement of the whole recording, of each one of
../shared/speech/en, all brought to the same peak. Silero judges the same samples where that does not take too long.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from bench.corpus import FRAME, FULL_SCALE, Missing, at_16k, clips, rms
from bench.detectors import Silero, judge_all, silero
from bench.plot import Axis, Curve, svg
from bench.report import Section, machine, table
from sttd._vad import VoiceGate
from sttd.audio.endpointer import Begin, Endpointer
from sttd.audio.format import RATE
from sttd.audio.pipeline import PERHAPS
from sttd.config.config import SessionOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from bench.corpus import Pcm

PERIOD_S = 60
"""Quiet is made for so long, then it comes again."""
LEADS_S = (0.5, 10.0, 120.0, 1800.0, 28800.0)
WORDS_AFTER = {120.0: 60, 1800.0: 4, 28800.0: 1}
"""How many words are tried at each level after the longest times; all of them after the others."""
ALL_NIGHT = ("hiss of 20", "hum of 50", "rain of 50", "television of 20, two rooms away")
"""What is tried after the longest time."""
SILERO_UP_TO_S = 10.0
FIRST_S, SETTLING_S = 0.6, 1.2
PEAKS_DB = (-6, -26)
GOAL = 0.97


@dataclass(frozen=True)
class Word:
    name: str
    samples: NDArray[np.float64]  # with a peak of one


@dataclass
class Found:
    """Of how many words so many were found."""

    words: int = 0
    gate: int = 0
    begun: int = 0
    silero: int = 0
    silero_words: int = 0

    def add(self, other: Found) -> None:
        for name in ("words", "gate", "begun", "silero", "silero_words"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def run(*, full: bool) -> Section:
    words = all_words()
    leads = LEADS_S if full else LEADS_S[:3]
    if not full:
        words = words[::6]
    quiets = kinds()
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found_of = pool.map(partial(after_all, leads=leads, words=words), quiets, quiets.values())
        by_kind: dict[str, dict[float, Found]] = dict(zip(quiets, found_of, strict=True))
    rows = []
    for kind, by_lead in by_kind.items():
        total = Found()
        for found in by_lead.values():
            total.add(found)
        rows.append(
            [kind, *(f"{found.gate}/{found.words}" if found.words else "" for found in by_lead.values()), *sums(total)]
        )
    everything = Found()
    columns = [Found() for _ in leads]
    for by_lead in by_kind.values():
        for column, found in zip(columns, by_lead.values(), strict=True):
            column.add(found)
            everything.add(found)
    rows.append(["all", *(f"{found.gate}/{found.words}" for found in columns), *sums(everything)])
    header = ["what came before", *(f"{lead:g} s" for lead in leads), "found", "begins an utterance", "Silero v6"]
    curves = [
        Curve("sttd", list(leads), [found.gate / found.words for found in columns]),
        Curve("begins an utterance", list(leads), [found.begun / found.words for found in columns]),
    ]
    if everything.silero_words:
        short = [(lead, found) for lead, found in zip(leads, columns, strict=True) if found.silero_words]
        curves.append(
            Curve("Silero v6", [lead for lead, _ in short], [f.silero / f.silero_words for _, f in short], dots=True)
        )
    plot = svg(
        "Words found after a time of anything",
        Axis("seconds", [0.1, 1, 10, 100, 1000, 10000, 100000], log=True),
        Axis("share of words", [0.8, 0.85, 0.9, 0.95, 1.0]),
        curves,
        legend=300,
    )
    text = f"""{machine("onnxruntime", "numpy")}. {len(words)} words with peaks of \
{" and ".join(f"{peak} dBFS" for peak in PEAKS_DB)}; after longer times not all of them. Quiet is at the level that \
its name says, in steps of 16 bits r.m.s., and lasts under the word.

{table(header, rows)}

Goal: {GOAL:.0%}, and no less than Silero. Silero was asked after at most {SILERO_UP_TO_S:g} s.

![Words found](plots/gate-life.svg)"""
    return Section("gate_life", "A word after any time of anything", text, {"gate-life.svg": plot})


def sums(found: Found) -> list[str]:
    of_silero = f"{found.silero / found.silero_words:.1%}" if found.silero_words else "not asked"
    return [f"{found.gate / found.words:.1%}", f"{found.begun / found.words:.1%}", of_silero]


def all_words() -> list[Word]:
    """Digits as they are, and the first words of each English recording."""
    found = [Word(clip.name, unit(at_16k(clip))) for clip in [*clips("digits", "digit"), *clips("digits", "speech")]]
    judge = silero()
    for clip in clips("en", "speech"):
        if judge is None:
            break
        pcm = at_16k(clip)
        start = int(np.argmax(judge_all(judge, pcm)[1])) * FRAME
        found.append(Word(clip.name, unit(pcm[max(0, start - RATE // 10) : start + int(FIRST_S * RATE)])))
    if not found:
        raise Missing("../shared/speech/digits")
    return found


def unit(pcm: NDArray[np.generic]) -> NDArray[np.float64]:
    samples = pcm.astype(float)
    return np.asarray(samples / max(1.0, float(np.abs(samples).max())))


def kinds() -> dict[str, NDArray[np.float64]]:
    """A minute of each kind of quiet, and of what else may go before a word."""
    rng = np.random.default_rng(5)
    length = PERIOD_S * RATE
    time = np.arange(length) / RATE
    hiss = rng.standard_normal(length)
    noises = {clip.name: at_16k(clip).astype(float) for clip in clips("noise", "noise")}

    def noise(name: str, level: float) -> NDArray[np.float64]:
        found = np.resize(noises[name], length)
        return np.asarray(found * level / rms(found))

    speech = np.resize(np.concatenate([at_16k(clip).astype(float) for clip in clips("en", "speech")[:12]]), length)
    room = rng.standard_normal(RATE) * 10 ** (-4 * np.arange(RATE) / RATE)
    murmur = np.fft.irfft(np.fft.rfft(speech, 2 * length) * np.fft.rfft(room, 2 * length))[:length]
    murmur = lowpass(murmur, 900)
    jump = hiss * 20
    up, down = jump.copy(), jump.copy()
    up[length - RATE // 2 :] *= 10
    down[: length - RATE // 2] *= 10
    gap = np.zeros(length)
    gap[length - RATE // 2 :] = 1  # half a second of quiet between what was loud and the word
    loud_speech = speech * (1 - gap) + hiss * 5
    music = noise("music-edm", 1000) * (1 - gap) + hiss * 5
    return {
        "silence": np.zeros(length),
        **{f"hiss of {level}": hiss * level for level in (1, 5, 20, 50, 100)},
        "hum of 50": 50 * np.sqrt(2) * np.sin(2 * np.pi * 50 * time) + 2 * hiss,
        "fan of 50": noise("us8k-air_conditioner-159761-0-0-8", 50),
        "fridge of 30": noise("freesound-fridge", 30),
        "rain of 50": noise("esc10-rain-1-54958-A", 50),
        "traffic of 50": noise("us8k-engine_idling-113205-5-1-3", 50),
        "clock of 30": noise("esc10-clock_tick-1-35687-A", 30) + 3 * hiss,
        "television of 20, two rooms away": murmur * 20 / rms(murmur) + 3 * hiss,
        "speech": loud_speech,
        "music": music,
        "clipped speech": np.clip(loud_speech * 40, -FULL_SCALE, FULL_SCALE - 1) * (1 - gap) + hiss * 5,
        "gain up by 20 dB": up,
        "gain down by 20 dB": down,
    }


def lowpass(samples: NDArray[np.float64], hertz: float) -> NDArray[np.float64]:
    spectrum = np.fft.rfft(samples)
    spectrum /= 1 + (np.arange(len(spectrum)) * RATE / len(samples) / hertz) ** 4
    return np.asarray(np.fft.irfft(spectrum, len(samples)))


def after(quiet: NDArray[np.float64], lead: float, words: Sequence[Word], judge: Silero | None) -> Found:
    """Words after `lead` seconds of quiet: each on a stream of its own up to ten seconds, else all on one."""
    found = Found()
    own = lead <= SILERO_UP_TO_S
    listener = Listener()
    for peak in PEAKS_DB:
        for word in islice(words, WORDS_AFTER.get(lead)):
            tail = ending(quiet, lead, word, peak)
            if own:
                listener = Listener()
                listener.hear(np.resize(quiet[::-1], max(0, int(lead * RATE) - PERIOD_S * RATE))[::-1])
            else:
                whole = int(lead) // PERIOD_S - 1
                minute = to_pcm(quiet)
                for _ in range(whole):
                    listener.hear_pcm(minute)
            before = len(tail) - len(word.samples) - int(SETTLING_S * RATE)
            listener.hear(tail[:before])
            voiced, begun = listener.hear(tail[before:])
            found.words += 1
            found.gate += voiced
            found.begun += begun
            if judge and own:
                found.silero_words += 1
                heard = judge_all(judge, to_pcm(tail))[1]
                found.silero += bool(heard[before // FRAME :].any())
    return found


def after_all(
    kind: str, quiet: NDArray[np.float64], leads: Sequence[float], words: Sequence[Word]
) -> dict[float, Found]:
    judge = silero()
    return {
        lead: after(quiet, lead, words, judge) if lead < LEADS_S[-1] or kind in ALL_NIGHT else Found() for lead in leads
    }


def ending(quiet: NDArray[np.float64], lead: float, word: Word, peak: float) -> NDArray[np.float64]:
    """The last minute of quiet at most, and the word over what would come next."""
    length = min(int(lead * RATE), PERIOD_S * RATE)
    under = quiet[: len(word.samples) + int(SETTLING_S * RATE)].copy()
    if not quiet[0] or rms(under) > 3 * rms(quiet[-RATE // 4 :]) or rms(under) < rms(quiet[-RATE // 4 :]) / 3:
        under = np.resize(quiet[-RATE // 4 :], len(under))  # what came last goes on
    under[: len(word.samples)] += word.samples * (FULL_SCALE - 1) * 10 ** (peak / 20)
    return np.concatenate([quiet[len(quiet) - length :], under])


def to_pcm(samples: NDArray[np.float64]) -> Pcm:
    return np.clip(np.rint(samples), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


class Listener:
    """The gate and the endpointer with the defaults, on one stream."""

    def __init__(self) -> None:
        options = SessionOptions()
        self._gate = VoiceGate(options.threshold)
        self._endpointer = Endpointer(options)
        self._rest = b""

    def hear(self, samples: NDArray[np.float64]) -> tuple[bool, bool]:
        return self.hear_pcm(to_pcm(samples))

    def hear_pcm(self, pcm: Pcm) -> tuple[bool, bool]:
        """Whether the gate called any frame speech, and whether an utterance was open or began."""
        voiced = begun = False
        for frame in self._frames(pcm):
            speech = self._gate.is_speech(frame)
            voiced |= speech
            perhaps = self._gate.instant > PERHAPS
            for mark in self._endpointer.step(speech, self._gate.power, perhaps=perhaps):
                begun |= isinstance(mark, Begin)
            begun |= self._endpointer.speaking
        return voiced, begun

    def _frames(self, pcm: Pcm) -> Iterator[bytes]:
        data = self._rest + pcm.tobytes()
        whole = len(data) // (2 * FRAME) * 2 * FRAME
        self._rest = data[whole:]
        for at in range(0, whole, 2 * FRAME):
            yield data[at : at + 2 * FRAME]
