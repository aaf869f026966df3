"""What the benchmarks hear: the recordings of ../shared/speech at 16 kHz, mixtures of them, the package's sample."""

from __future__ import annotations

import csv
import importlib
import warnings
import wave
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sttd.audio.format import RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.random import Generator
    from numpy.typing import NDArray

    Pcm = NDArray[np.int16]
    Mask = NDArray[np.bool_]

ROOT = Path(__file__).parent.parent
SPEECH = ROOT.parent / "shared" / "speech"
FRAME = RATE // 50
FULL_SCALE = 32768.0


class Missing(Exception):
    """A benchmark cannot run; the message says what it lacks."""


def optional(name: str) -> Any:
    """A module that may not be installed: itself, or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # webrtcvad's import of pkg_resources
        try:
            return importlib.import_module(name)
        except ImportError:
            return None


@dataclass(frozen=True)
class Clip:
    """A recording as it lies on disk."""

    name: str
    path: Path
    rate: int
    samples: Pcm  # frames x channels
    transcript: str
    flags: str
    language: str

    @property
    def babble(self) -> bool:
        """Whether this noise is made of voices."""
        return "babble" in self.flags


def clips(folder: str, kind: str) -> list[Clip]:
    """The recordings of one kind in one folder of ../shared/speech."""
    soundfile = optional("soundfile")
    if soundfile is None or not (SPEECH / "manifest.tsv").exists():
        raise Missing("../shared/speech" if soundfile else "the package soundfile")
    with (SPEECH / "manifest.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    found = []
    for row in rows:
        if row["path"].startswith(f"{folder}/") and row["kind"] == kind:
            path = SPEECH / row["path"]
            samples, rate = soundfile.read(path, dtype="int16", always_2d=True)
            found.append(Clip(row["id"], path, rate, samples, row["transcript"], row["flags"], row["lang"]))
    return found


def at_16k(clip: Clip) -> Pcm:
    """Mono at 16 kHz, by a resampler that is not sttd's."""
    mono = clip.samples.mean(axis=1)
    if clip.rate == RATE:
        return to_s16(mono)
    if soxr := optional("soxr"):
        return to_s16(soxr.resample(mono, clip.rate, RATE, quality="VHQ"))
    if signal := optional("scipy.signal"):
        divisor = int(np.gcd(clip.rate, RATE))
        return to_s16(signal.resample_poly(mono, RATE // divisor, clip.rate // divisor))
    raise Missing("a resampler: the package soxr or scipy")


def sample() -> Pcm:
    """The 5 s of speech that the package carries."""
    with wave.open(str(files("sttd").joinpath("sample.wav"))) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def hiss(length: int, rng: Generator) -> Pcm:
    """As good as silence: each sample is -1, 0 or 1."""
    return rng.integers(-1, 2, length, dtype=np.int16)


def to_s16(samples: NDArray[np.floating]) -> Pcm:
    """Rounded; what is too loud makes all of it softer."""
    peak = float(np.abs(samples).max(initial=1.0))
    rounded: Pcm = np.rint(samples * min(1.0, 32767 / peak)).astype(np.int16)
    return rounded


def rms(samples: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(samples.astype(float) ** 2)))


def frames(pcm: Pcm) -> list[bytes]:
    """The whole frames of 20 ms."""
    data = pcm.tobytes()
    return [data[at : at + 2 * FRAME] for at in range(0, len(data) - 2 * FRAME + 1, 2 * FRAME)]


def in_silence(pcm: Pcm, rng: Generator) -> Pcm:
    """With two seconds of next to nothing before it and after it."""
    return np.concatenate([hiss(2 * RATE, rng), pcm, hiss(2 * RATE, rng)])


def with_noise(pcm: Pcm, speech: Mask, noise: Pcm, decibels: float) -> Pcm:
    """`pcm` and a looped noise, whose level lies `decibels` below that of the frames marked as speech."""
    whole = pcm[: len(speech) * FRAME].reshape(-1, FRAME)
    gain = rms(whole[speech]) / rms(noise) * 10 ** (-decibels / 20)
    return to_s16(pcm + gain * np.resize(noise, len(pcm)))


def day(utterances: Sequence[Pcm], background: NDArray[np.floating], share: float, rng: Generator) -> tuple[Pcm, float]:
    """Utterances scattered over a background until they make up `share` of it; and how many seconds they are."""
    chosen: list[Pcm] = []
    left = int(share * len(background))
    for index in rng.permutation(len(utterances)):
        if len(utterances[index]) <= left:
            chosen.append(utterances[index])
            left -= len(utterances[index])
    spoken = sum(map(len, chosen))
    gaps = np.diff(np.sort(rng.integers(0, len(background) - spoken, len(chosen))), prepend=0)
    mixed, at = background.astype(float), 0
    for gap, pcm in zip(gaps, chosen, strict=True):
        at += int(gap)
        mixed[at : at + len(pcm)] += pcm
        at += len(pcm)
    return to_s16(mixed), spoken / RATE
