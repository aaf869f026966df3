"""Labelled frames, clean and in noise, and what each contestant makes of them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.corpus import FRAME, at_16k, clips, in_silence, with_noise
from bench.detectors import Detector, Silero, judge_all
from sttd.audio.format import RATE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.corpus import Mask, Pcm
    from bench.scores import Floats

SEED = 3
QUICK = 40  # utterances
EDGE = 5  # frames
LEVELS = (20, 10, 5, 0)  # dB of speech over noise
COLUMNS = ("labelled", "inner", "clean", *(f"{level} dB" for level in LEVELS), "20-0 dB", "no babble")


@dataclass(frozen=True)
class Judged:
    """Frames with their labels, and scores and decisions by contestant."""

    labels: Mask
    found: dict[str, tuple[Floats, Mask]]

    def only(self, frames: Mask) -> Judged:
        return Judged(
            self.labels[frames],
            {name: (scores[frames], decisions[frames]) for name, (scores, decisions) in self.found.items()},
        )


def pooled(parts: Sequence[Judged]) -> Judged:
    """The frames of several recordings as if they were one."""
    found = {
        name: (
            np.concatenate([part.found[name][0] for part in parts]),
            np.concatenate([part.found[name][1] for part in parts]),
        )
        for name in parts[0].found
    }
    return Judged(np.concatenate([part.labels for part in parts]), found)


def judge(detectors: Sequence[Detector], labels: Mask, pcm: Pcm) -> Judged:
    return Judged(labels, {detector.name: judge_all(detector, pcm) for detector in detectors})


def inner(labels: Mask) -> Mask:
    """The frames that lie at least 100 ms from where the label changes."""
    far = np.ones(len(labels), bool)
    for change in np.flatnonzero(np.diff(labels)) + 1:
        far[max(0, change - EDGE) : change + EDGE] = False
    return far


def conditions(detectors: Sequence[Detector], *, full: bool) -> dict[str, Judged]:
    """By the name of what was heard, in the order of COLUMNS; without Silero there are no labels for mixtures."""
    parts: dict[str, list[Judged]] = {name: [] for name in COLUMNS}
    for labels, pcm in labelled():
        one = judge(detectors, labels, pcm)
        parts["labelled"].append(one)
        parts["inner"].append(one.only(inner(labels)))
    labeller = next((detector for detector in detectors if isinstance(detector, Silero)), None)
    for labels, clean, noise, babble in pairs(labeller, full=full) if labeller else ():
        parts["clean"].append(judge(detectors, labels, clean))
        for level in LEVELS:
            one = judge(detectors, labels, with_noise(clean, labels, noise, level))
            parts[f"{level} dB"].append(one)
            parts["20-0 dB"].append(one)
            if not babble:
                parts["no babble"].append(one)
    return {name: pooled(found) for name, found in parts.items() if found}


def labelled() -> Iterator[tuple[Mask, Pcm]]:
    """The recordings of ../shared/speech/vad; a frame is speech if its middle is."""
    for clip in clips("vad", "vad"):
        pcm = at_16k(clip)
        middles = (np.arange(len(pcm) // FRAME) + 0.5) * FRAME / RATE
        labels = np.zeros(len(middles), bool)
        with clip.path.with_suffix(".tsv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                labels |= (middles >= float(row["start"])) & (middles < float(row["end"]))
        yield labels, pcm


def pairs(labeller: Silero, *, full: bool) -> Iterator[tuple[Mask, Pcm, Pcm, bool]]:
    """Labels, an utterance in silence, a noise, and whether that is babble; noises are dealt out like cards."""
    rng = np.random.default_rng(SEED)
    utterances, noises = clips("en", "speech"), clips("noise", "noise")
    chosen = rng.permutation(len(utterances))[: None if full else QUICK]
    deck = np.concatenate([rng.permutation(len(noises)) for _ in range(0, len(chosen), len(noises))])
    for utterance, noise in zip(chosen, deck, strict=False):
        clean = in_silence(at_16k(utterances[utterance]), rng)
        yield judge_all(labeller, clean)[1], clean, at_16k(noises[noise]), noises[noise].babble
