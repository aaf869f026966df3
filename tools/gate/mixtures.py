"""What the voice gate is trained on: stretches of speech, noise and silence mixed as they might reach a microphone.

    python tools/gate/mixtures.py --corpus DIR --out FILE.npz --number 12000 --seed 1

Takes what corpus.py made. A stretch is ten seconds: utterances with pauses, each spoken faster or slower, coloured,
perhaps in a room and perhaps through a telephone; noises and music at a signal-to-noise ratio of -5 to 60 dB, some of
it babble of many voices, or made here of tones, pulses, clicks and hiss; perhaps somebody far away, who does not count
as speech; any level from -50 to -6 dB. One in four has no speech at all. The label of a frame is Silero's probability
for the clean utterance at that time, half of it rounded. The features are computed by the compiled gate itself.
"""

import argparse
import itertools
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

from sttd._vad import VoiceGate

RATE, FRAME, BLOCK, FRAMES = 16000, 320, 512, 500
LENGTH = FRAME * FRAMES

Array = np.ndarray


class Corpus:
    """The clips of corpus.py, by kind, in groups so that a small voice is heard as often as a large one."""

    def __init__(self, folder: Path) -> None:
        index = json.loads((folder / "index.json").read_text())
        self.audio = {kind: np.memmap(folder / f"{kind}.s16", np.int16, "r") for kind in ("speech", "noise")}
        self.label = np.memmap(folder / "speech.prob.f32", np.float32, "r")
        self.groups: dict[str, list[list[dict]]] = {}
        for kind in ("speech", "noise"):
            groups: dict[tuple[str, str], list[dict]] = {}
            for clip in index:
                if clip["kind"] == kind:
                    groups.setdefault((clip["source"], clip["group"]), []).append(clip)
            self.groups[kind] = list(groups.values())
            # Between equal shares for groups and shares by duration.
        self.weights = {kind: self._weights(groups) for kind, groups in self.groups.items()}

    @staticmethod
    def _weights(groups: list[list[dict]]) -> Array:
        weights = np.array([sum(clip["length"] for clip in group) for group in groups]) ** 0.5
        return np.asarray(weights / weights.sum())

    def clip(self, kind: str, chance: np.random.Generator) -> tuple[Array, Array]:
        """Samples of a random clip, -1 to 1, and for speech its probabilities a block."""
        groups = self.groups[kind]
        group = groups[chance.choice(len(groups), p=self.weights[kind])]
        clip = group[chance.integers(len(group))]
        samples = self.audio[kind][clip["start"] :][: clip["length"]].astype(np.float32) / 32768
        if kind == "noise":
            return samples, np.zeros(0)
        return samples, np.array(self.label[clip["prob_start"] :][: clip["length"] // BLOCK])


def stretch(samples: Array, factor: float) -> Array:
    """The same played `factor` times as fast: pitch and formants move with it."""
    at = np.arange(0, len(samples) - 1, factor)
    return np.interp(at, np.arange(len(samples)), samples).astype(np.float32)


def coloured(samples: Array, chance: np.random.Generator) -> Array:
    """Through a microphone, a telephone, a room."""
    if chance.random() < 0.5:  # a tilt and a resonance
        samples = lfilter([1, chance.uniform(-0.6, 0.6)], [1], samples)
        radius, angle = chance.uniform(0.3, 0.85), chance.uniform(0, np.pi)
        pole = [1, -2 * radius * np.cos(angle), radius**2]
        samples = lfilter(pole, [1], samples) if chance.random() < 0.5 else lfilter([1], pole, samples)
    if chance.random() < 0.2:
        samples = sosfilt(butter(4, chance.uniform(3200, 6000), fs=RATE, output="sos"), samples)
    if chance.random() < 0.3:
        samples = sosfilt(butter(2, chance.uniform(60, 300), "highpass", fs=RATE, output="sos"), samples)
    if chance.random() < 0.45:
        decay = chance.uniform(0.1, 0.8)
        time = np.arange(int(RATE * decay)) / RATE
        room = chance.standard_normal(len(time)) * 10 ** (-3 * time / decay) * (time > chance.uniform(0.001, 0.01))
        room *= chance.uniform(0.1, 1.0) / np.sqrt((room**2).sum() + 1e-9)
        room[0] = 1
        samples = fftconvolve(samples, room)[: len(samples)]
    return np.asarray(samples, np.float32)


def utterances(corpus: Corpus, chance: np.random.Generator) -> tuple[Array, Array]:
    """Ten seconds of speech with pauses, and the label of each frame."""
    audio, label = np.zeros(LENGTH, np.float32), np.zeros(FRAMES, np.float32)
    at = int(chance.exponential(0.7) * RATE) if chance.random() < 0.85 else 0
    pauses = chance.choice([0.15, 0.6, 2.0])
    keep = corpus.clip("speech", chance) if chance.random() < 0.3 else None
    while at < LENGTH - RATE // 4:
        samples, probability = keep or corpus.clip("speech", chance)
        if len(samples) > 12 * RATE:
            start = int(chance.integers(0, len(samples) - 10 * RATE)) // BLOCK * BLOCK
            samples, probability = samples[start : start + 10 * RATE], probability[start // BLOCK :]
        factor = chance.uniform(0.82, 1.22) if chance.random() < 0.7 else 1.0
        samples = stretch(samples, factor)
        samples = (
            coloured(samples, chance) * (0.05 / (np.sqrt(np.mean(samples**2)) + 1e-6)) * 10 ** chance.uniform(-0.4, 0.3)
        )
        take = min(len(samples), LENGTH - at)
        audio[at : at + take] += samples[:take]
        first = -(-at // FRAME)
        middles = (np.arange(first, min(FRAMES, (at + take) // FRAME)) * FRAME + FRAME // 2 - at) * factor
        blocks = np.minimum((middles // BLOCK).astype(int), len(probability) - 1)
        label[first : first + len(blocks)] = np.maximum(label[first : first + len(blocks)], probability[blocks])
        at += take + int(chance.exponential(pauses) * RATE)
        if chance.random() < 0.3:
            keep = None
    return audio, label


def distant(corpus: Corpus, chance: np.random.Generator) -> Array:
    """Ten seconds of somebody in another room, with a level of about one while they speak."""
    samples = np.concatenate([corpus.clip("speech", chance)[0] for _ in range(int(chance.integers(1, 4)))])[:LENGTH]
    decay = chance.uniform(0.3, 1.2)
    time = np.arange(int(RATE * decay)) / RATE
    samples = fftconvolve(samples, chance.standard_normal(len(time)) * 10 ** (-3 * time / decay))[:LENGTH]
    samples = sosfilt(butter(1, chance.uniform(800, 5000), fs=RATE, output="sos"), samples)
    audio = np.zeros(LENGTH, np.float32)
    at = int(chance.integers(0, LENGTH - len(samples) + 1))
    audio[at : at + len(samples)] = samples / (samples.std() + 1e-6)
    return audio


def machines(chance: np.random.Generator) -> Array:
    """Ten seconds of events such as horns, sirens, engines, strings, barks and clicks: pitched, but no voice."""
    audio = np.zeros(LENGTH)
    at = 0
    steady = chance.random() < 0.3
    pause = chance.choice([0.01, 0.1, 0.5, 1.5])
    while at < LENGTH:
        size = min(LENGTH - at, int(RATE * (10 if steady else 10 ** chance.uniform(-2, 0.5))))
        time = np.arange(size) / RATE
        kind = chance.random()
        pitch = 10 ** chance.uniform(1.3, 3.3)
        glide = 2 ** (chance.uniform(-1, 1) * (chance.random() < 0.5) * time / (time[-1] + 0.01))
        wobble = 1 + chance.uniform(0, 0.05) * np.sin(2 * np.pi * chance.uniform(0.5, 12) * time)
        phase = 2 * np.pi * np.cumsum(pitch * glide * wobble) / RATE
        if kind < 0.6:
            partials = np.arange(1, max(2, min(16, int(7500 / pitch))))
            levels = partials ** -chance.uniform(0, 2) * chance.uniform(0, 1, len(partials)) ** chance.uniform(0, 2)
            angles = partials[:, None] * phase.astype(np.float32) + chance.uniform(0, 6, (len(partials), 1))
            part = levels @ np.sin(angles)
        elif kind < 0.8:  # a pulse train through a resonance
            part = lfilter(
                [1],
                [1, -2 * 0.95 * np.cos(chance.uniform(0.05, 2)), 0.9025],
                np.diff(phase % (2 * np.pi), prepend=0) < 0,
            )
        else:
            part = sosfilt(
                butter(2, np.sort(chance.uniform(100, 7500, 2)) + np.array([0, 200]), "band", fs=RATE, output="sos"),
                chance.standard_normal(size),
            )
        decay = chance.choice([0.0, 1.0, 5.0, 30.0]) * (not steady)
        part = part * np.exp(-decay * time) * np.minimum(1, time / 10 ** chance.uniform(-3, -1))
        if chance.random() < 0.3:
            part *= 1 + chance.uniform(0, 1) * np.sin(2 * np.pi * chance.uniform(1, 40) * time)
        audio[at : at + size] += part * 10 ** chance.uniform(-0.5, 0.5) / (part.std() + 1e-3)
        at += size + int(chance.exponential(pause) * RATE)
    audio += chance.standard_normal(LENGTH) * audio.std() * 10 ** chance.uniform(-3, 0)
    return np.asarray(audio, np.float32)


def hiss(chance: np.random.Generator) -> Array:
    """Ten seconds of wind, waves, rain, engines and the like: noise in bands, each with a life of its own."""
    spectrum = np.fft.rfft(chance.standard_normal(LENGTH))
    frequency = np.maximum(np.arange(len(spectrum)) * RATE / LENGTH, 20)
    spectrum *= frequency ** -chance.uniform(0, 1.2)
    edges = np.sort(10 ** chance.uniform(1.8, 3.9, int(chance.integers(0, 6))))
    together = envelope(chance)
    audio = np.zeros(LENGTH)
    for low, high in itertools.pairwise([0.0, *edges, 8000.0]):
        band = np.fft.irfft(np.where((frequency >= low) & (frequency < high), spectrum, 0), LENGTH)
        audio += band * 10 ** chance.uniform(-0.7, 0.7) * (together if chance.random() < 0.5 else envelope(chance))
    if chance.random() < 0.2:
        hum = chance.choice([50, 60]) * np.arange(1, 9)[:, None] * np.arange(LENGTH) / RATE
        audio += audio.std() * (chance.random((8, 1)) * np.sin(2 * np.pi * hum)).sum(0)
    return np.asarray(audio, np.float32)


def envelope(chance: np.random.Generator) -> Array:
    """How the level of a noise moves: not at all, in waves, in beats, or as it likes."""
    time = np.arange(LENGTH) / RATE
    kind = chance.random()
    if kind < 0.3:
        return np.ones(LENGTH)
    beat = np.sin(2 * np.pi * 10 ** chance.uniform(-1.2, 1.5) * time + chance.uniform(0, 6))
    if kind < 0.5:
        return np.asarray(1 + chance.uniform(0.1, 1) * beat)
    if kind < 0.7:
        return np.asarray(np.exp(chance.uniform(0.5, 4) * beat))
    knots = int(10 ** chance.uniform(0.7, 2.2))
    walk = np.interp(time, np.linspace(0, 10, knots), chance.standard_normal(knots))
    return np.asarray(10 ** (walk * chance.uniform(0.1, 0.7)))


def recorded(corpus: Corpus, chance: np.random.Generator) -> Array:
    """Ten seconds of noises and music from the corpus."""
    audio = np.zeros(LENGTH, np.float32)
    at = 0
    repeat = corpus.clip("noise", chance)[0] if chance.random() < 0.4 else None
    while at < LENGTH:
        samples = repeat if repeat is not None else corpus.clip("noise", chance)[0]
        if len(samples) > LENGTH:
            start = int(chance.integers(0, len(samples) - LENGTH + 1))
            samples = samples[start : start + LENGTH]
        if chance.random() < 0.6:
            samples = stretch(samples, 2 ** chance.uniform(-1.2, 1.2))
        if chance.random() < 0.3:
            samples = samples[::-1]
        samples = samples * (10 ** chance.uniform(-0.3, 0.3) / (samples.std() + 1e-4))
        take = min(len(samples), LENGTH - at)
        audio[at : at + take] = samples[:take]
        at += take + (int(chance.exponential(0.3) * RATE) if len(samples) < RATE else 0)
    return audio


def background(corpus: Corpus, chance: np.random.Generator) -> Array:
    """Ten seconds of noise with a level of about one."""
    kind = chance.random()
    if kind < 0.07:
        audio = np.zeros(LENGTH, np.float32)
        for _ in range(int(chance.integers(6, 14))):
            samples = np.concatenate([corpus.clip("speech", chance)[0] for _ in range(4)])
            audio += np.resize(samples / (samples.std() + 1e-6), LENGTH)
    elif kind < 0.2:
        audio = machines(chance)
    elif kind < 0.4:
        audio = hiss(chance)
    else:
        audio = recorded(corpus, chance)
        if chance.random() < 0.25:
            audio += chance.uniform(0.2, 1) * (recorded(corpus, chance) if chance.random() < 0.5 else hiss(chance))
    if chance.random() < 0.35:
        audio = coloured(audio, chance)
    return np.asarray(audio / (audio.std() + 1e-6), np.float32)


def mixture(corpus: Corpus, chance: np.random.Generator) -> tuple[Array, Array]:
    """Features (FRAMES x INPUTS) and labels (FRAMES) of one stretch."""
    if chance.random() < 0.25:
        speech, label = np.zeros(LENGTH, np.float32), np.zeros(FRAMES, np.float32)
        audio = background(corpus, chance)
        if chance.random() < 0.2:
            audio = audio * 10 ** chance.uniform(-4, 0) + 0.03 * distant(corpus, chance)
    else:
        speech, label = utterances(corpus, chance)
        active = np.repeat(label > 0.5, FRAME)
        level = np.sqrt(np.mean(speech[active] ** 2)) if active.any() else 0.05
        noise = background(corpus, chance)
        if chance.random() < 0.3:
            noise += 0.7 * background(corpus, chance)
        ratio = chance.uniform(20, 60) if chance.random() < 0.3 else chance.uniform(-5, 20)
        audio = speech + noise * level * 10 ** (-ratio / 20)
        if chance.random() < 0.2:
            audio += distant(corpus, chance) * level * 10 ** chance.uniform(-1.8, -0.8)
    audio *= 10 ** (chance.uniform(-50, -6) / 20) / (np.sqrt(np.mean(audio**2)) + 1e-6)
    if chance.random() < 0.05:
        audio *= 4  # clips
    audio += chance.standard_normal(LENGTH) * 10 ** (chance.uniform(-100, -65) / 20)
    if chance.random() < 0.1:
        audio += chance.uniform(-0.05, 0.05)
    pcm = np.clip(np.rint(audio * 32768), -32768, 32767).astype(np.int16).tobytes()
    gate = VoiceGate()
    rows = [gate.features(pcm[at : at + 2 * FRAME]) for at in range(0, len(pcm), 2 * FRAME)]
    return np.frombuffer(b"".join(rows), np.float32).reshape(FRAMES, -1), (label + (label > 0.5)) / 2


def some(folder: Path, number: int, seed: int) -> tuple[Array, Array]:
    """`number` stretches."""
    corpus, chance = Corpus(folder), np.random.default_rng(seed)
    made = [mixture(corpus, chance) for _ in range(number)]
    return np.stack([x for x, _ in made]).astype(np.float16), np.stack([y for _, y in made]).astype(np.float16)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--number", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    shares = -(-options.number // 200)
    with ProcessPoolExecutor(options.processes) as pool:
        seeds = [options.seed * 100_000 + share for share in range(shares)]
        made = list(pool.map(some, [options.corpus] * shares, [200] * shares, seeds))
    np.savez(options.out, x=np.concatenate([x for x, _ in made]), y=np.concatenate([y for _, y in made]))


if __name__ == "__main__":
    main()
