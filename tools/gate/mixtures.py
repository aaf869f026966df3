"""What the voice gate is trained on: stretches of speech, noise and silence mixed as they might reach a microphone.

    python tools/gate/mixtures.py --corpus DIR --out FILE.npz --number 9000 --seed 1

Takes what corpus.py made. A stretch is twenty seconds, of one of these kinds:

- talk: utterances with pauses, each spoken faster or slower, coloured, perhaps in a room;
  noises and music at a signal-to-noise ratio of -5 to 60 dB, some of them babble of many voices, or made here of tones,
  pulses, clicks and hiss; perhaps somebody far away, who does not count as speech;
- a quiet room: hiss, hum, a fan, or a recorded noise, from a third of a step to some 300 steps r.m.s., for the whole
  stretch, with up to four single words in it, or none;
- noise alone, or a television two rooms away.

Any of them may be louder or softer from some moment on, as when somebody turns a knob, be clipped, or have been sent
through a telephone's codec. The label of a frame is Silero's probability for the clean utterance at that time, half of
it rounded. The features are computed by the compiled gate itself.
"""

import argparse
import io
import itertools
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import av
import numpy as np
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

from sttd._vad import VoiceGate

RATE, FRAME, BLOCK, FRAMES = 16000, 320, 512, 1000
LENGTH = FRAME * FRAMES
SECONDS = LENGTH / RATE
LONGEST_WORD = 1.2  # seconds

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
            words: dict[tuple[str, str], list[dict]] = {}
            for clip in index:
                if clip["kind"] == kind:
                    groups.setdefault((clip["source"], clip["group"]), []).append(clip)
                    if kind == "speech" and clip["length"] < LONGEST_WORD * RATE:
                        words.setdefault((clip["source"], clip["group"]), []).append(clip)
            self.groups[kind] = list(groups.values())
            if words:
                self.groups["word"] = list(words.values())
            # Between equal shares for groups and shares by duration.
        self.weights = {kind: self._weights(groups) for kind, groups in self.groups.items()}

    @staticmethod
    def _weights(groups: list[list[dict]]) -> Array:
        weights = np.array([sum(clip["length"] for clip in group) for group in groups]) ** 0.5
        return np.asarray(weights / weights.sum())

    def clip(self, kind: str, chance: np.random.Generator) -> tuple[Array, Array]:
        """Samples of a random clip, -1 to 1, and for speech and for a single word its probabilities a block."""
        groups = self.groups[kind]
        group = groups[chance.choice(len(groups), p=self.weights[kind])]
        clip = group[chance.integers(len(group))]
        samples = self.audio[clip["kind"]][clip["start"] :][: clip["length"]].astype(np.float32) / 32768
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


def place(audio: Array, label: Array, at: int, samples: Array, probability: Array, factor: float) -> int:
    """Add speech, which plays `factor` times as fast as its probabilities count, at a sample. Returns its length."""
    take = min(len(samples), LENGTH - at)
    audio[at : at + take] += samples[:take]
    first = -(-at // FRAME)
    middles = (np.arange(first, min(FRAMES, (at + take) // FRAME)) * FRAME + FRAME // 2 - at) * factor
    blocks = np.minimum((middles // BLOCK).astype(int), len(probability) - 1)
    label[first : first + len(blocks)] = np.maximum(label[first : first + len(blocks)], probability[blocks])
    return take


def utterances(corpus: Corpus, chance: np.random.Generator) -> tuple[Array, Array]:
    """Speech with pauses, and the label of each frame."""
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
        samples = coloured(stretch(samples, factor), chance)
        samples *= (0.05 / (np.sqrt(np.mean(samples**2)) + 1e-6)) * 10 ** chance.uniform(-0.4, 0.3)
        at += place(audio, label, at, samples, probability, factor) + int(chance.exponential(pauses) * RATE)
        if chance.random() < 0.3:
            keep = None
    return audio, label


def word(corpus: Corpus, chance: np.random.Generator) -> tuple[Array, Array, float]:
    """A single word with a peak of one, its probabilities, and how many times as fast it plays."""
    if chance.random() < 0.3:  # as if cut out of a sentence
        samples, probability = corpus.clip("speech", chance)
        size = int(chance.uniform(0.2, 0.9) * RATE) // BLOCK
        spoken = np.convolve(probability > 0.5, np.ones(size), "valid") > 0.8 * size
        if not spoken.any():
            return word(corpus, chance)
        start = int(chance.choice(np.flatnonzero(spoken)))
        samples = samples[start * BLOCK : (start + size) * BLOCK].copy()
        probability = np.maximum(probability[start : start + size], 0.9)
        samples[:80] *= np.linspace(0, 1, 80)
        samples[-80:] *= np.linspace(1, 0, 80)
    else:
        samples, probability = corpus.clip("word", chance)
        spoken = np.flatnonzero(probability > 0.5)
        if chance.random() < 0.5 and len(spoken):  # cut tightly
            samples = samples[spoken[0] * BLOCK : (spoken[-1] + 1) * BLOCK]
            probability = probability[spoken[0] : spoken[-1] + 1]
    factor = chance.uniform(0.8, 1.25) if chance.random() < 0.7 else 1.0
    samples = coloured(stretch(samples, factor), chance)
    return samples / (np.abs(samples).max() + 1e-6), probability, factor


def room(corpus: Corpus, chance: np.random.Generator) -> Array:
    """What a microphone hears all day, with a level of about one: hiss, hum, a fan, rain, a street, a clock."""
    kind = chance.random()
    time = np.arange(LENGTH) / RATE
    if kind < 0.35:
        audio = chance.standard_normal(LENGTH)
        if chance.random() < 0.5:
            audio = lfilter([1], [1, -chance.uniform(-0.3, 0.98)], audio)
    elif kind < 0.55:
        harmonics = chance.choice([50, 60]) * np.arange(1, 12)[:, None]
        levels = chance.random(11) ** 2 * np.arange(1, 12) ** -chance.uniform(0, 2)
        audio = levels @ np.sin(2 * np.pi * harmonics * time + chance.uniform(0, 6, (11, 1)))
        audio = audio / audio.std() + chance.standard_normal(LENGTH) * 10 ** chance.uniform(-2, 0)
    elif kind < 0.7:
        audio = hiss(chance)
    elif kind < 0.78:
        audio = chance.standard_normal(LENGTH) * 0.3
        beat = int(RATE * chance.uniform(0.4, 1.5))
        tick = chance.standard_normal(int(RATE * chance.uniform(0.003, 0.03)))
        tick = coloured(tick * np.linspace(1, 0, len(tick)) ** 2 * chance.uniform(2, 30), chance)
        for at in range(int(chance.integers(beat)), LENGTH - len(tick), beat):
            audio[at : at + len(tick)] += tick * chance.uniform(0.7, 1.3)
    else:
        audio = recorded(corpus, chance)
    return np.asarray(audio / (audio.std() + 1e-6), np.float32)


def quiet(corpus: Corpus, chance: np.random.Generator) -> tuple[Array, Array]:
    """A quiet room with single words, or none, and the label of each frame; in units of full scale."""
    words, label = np.zeros(LENGTH, np.float32), np.zeros(FRAMES, np.float32)
    audio = room(corpus, chance) * 10 ** chance.uniform(-0.5, 2.5) / 32768
    if chance.random() < 0.15:
        audio[: int(chance.integers(LENGTH))] = 0  # a microphone that is switched on, or a stream that was padded
    if chance.random() < 0.15:
        audio += distant(corpus, chance) * 10 ** chance.uniform(0, 2.3) / 32768
    count = int(chance.choice([0, 1, 2, 4], p=[0.3, 0.3, 0.25, 0.15]))
    starts = np.sort(chance.integers(0, LENGTH - RATE, count))
    if count and chance.random() < 0.2:
        starts[0] = 0
    for at in starts:
        samples, probability, factor = word(corpus, chance)
        level = max(10 ** chance.uniform(-2.2, -0.1), 3 * audio.std() * 10 ** chance.uniform(0, 1))
        place(words, label, int(at), samples * level, probability, factor)
    return audio + words, label


def distant(corpus: Corpus, chance: np.random.Generator) -> Array:
    """Somebody in another room, with a level of about one while they speak."""
    samples = np.concatenate([corpus.clip("speech", chance)[0] for _ in range(int(chance.integers(1, 6)))])[:LENGTH]
    decay = chance.uniform(0.3, 1.2)
    time = np.arange(int(RATE * decay)) / RATE
    samples = fftconvolve(samples, chance.standard_normal(len(time)) * 10 ** (-3 * time / decay))[:LENGTH]
    samples = sosfilt(butter(1, chance.uniform(800, 5000), fs=RATE, output="sos"), samples)
    audio = np.zeros(LENGTH, np.float32)
    at = int(chance.integers(0, LENGTH - len(samples) + 1))
    audio[at : at + len(samples)] = samples / (samples.std() + 1e-6)
    return audio


def machines(chance: np.random.Generator) -> Array:
    """Events such as horns, sirens, engines, strings, barks and clicks: pitched, but no voice."""
    audio = np.zeros(LENGTH)
    at = 0
    steady = chance.random() < 0.3
    pause = chance.choice([0.01, 0.1, 0.5, 1.5])
    while at < LENGTH:
        size = min(LENGTH - at, int(RATE * (SECONDS if steady else 10 ** chance.uniform(-2, 0.5))))
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
    """Wind, waves, rain, engines and the like: noise in bands, each with a life of its own."""
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
    walk = np.interp(time, np.linspace(0, SECONDS, knots), chance.standard_normal(knots))
    return np.asarray(10 ** (walk * chance.uniform(0.1, 0.7)))


def recorded(corpus: Corpus, chance: np.random.Generator) -> Array:
    """Noises and music from the corpus."""
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
    """Noise with a level of about one."""
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


def through_codec(audio: Array, chance: np.random.Generator) -> Array:
    """As a telephone or a messenger passes speech on."""
    if chance.random() < 0.6:  # G.711 at 8 kHz (ITU-T G.711, mu-law, 8 bits)
        narrow = sosfilt(butter(6, 3400, fs=RATE, output="sos"), audio)[::2].clip(-1, 1)
        codes = np.rint(127 * np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256))
        narrow = np.sign(codes) * np.expm1(np.abs(codes) / 127 * np.log(256)) / 255
        wide = np.zeros(len(audio))
        wide[::2] = 2 * narrow
        return np.asarray(sosfilt(butter(6, 3600, fs=RATE, output="sos"), wide), np.float32)
    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as box:
        stream = box.add_stream("libopus", rate=RATE, layout="mono")
        stream.bit_rate = int(chance.integers(6, 20)) * 1000
        frame = av.AudioFrame.from_ndarray((audio.clip(-1, 1) * 32767).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate = RATE
        for packet in itertools.chain(stream.encode(frame), stream.encode(None)):
            box.mux(packet)
    file.seek(0)
    resampler = av.AudioResampler("s16", "mono", RATE)
    with av.open(file) as box:
        frames = [f for frame in box.decode(audio=0) for f in resampler.resample(frame)] + resampler.resample(None)
    decoded = np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float32) / 32768
    return np.resize(decoded, LENGTH) if len(decoded) >= LENGTH else np.pad(decoded, (0, LENGTH - len(decoded)))


def talk(corpus: Corpus, chance: np.random.Generator) -> tuple[Array, Array]:
    """Speech over noise, and the label of each frame."""
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
    return audio, label


def noise_alone(corpus: Corpus, chance: np.random.Generator) -> Array:
    """No speech, but perhaps a television two rooms away."""
    audio = background(corpus, chance)
    if chance.random() < 0.3:
        audio = audio * 10 ** chance.uniform(-4, 0) + 0.03 * distant(corpus, chance)
    return audio


def mixture(corpus: Corpus, chance: np.random.Generator) -> tuple[Array, Array]:
    """Features (FRAMES x INPUTS) and labels (FRAMES) of one stretch."""
    kind = chance.random()
    if kind < 0.35:
        audio, label = quiet(corpus, chance)
    else:
        if kind < 0.8:
            audio, label = talk(corpus, chance)
        else:
            audio, label = noise_alone(corpus, chance), np.zeros(FRAMES, np.float32)
        audio *= 10 ** (chance.uniform(-60, -6) / 20) / (np.sqrt(np.mean(audio**2)) + 1e-6)
        audio += chance.standard_normal(LENGTH) * 10 ** (chance.uniform(-100, -65) / 20)
    if chance.random() < 0.15:
        audio[int(chance.integers(LENGTH)) :] *= 10 ** (chance.uniform(-24, 24) / 20)
    if chance.random() < 0.06:
        audio *= 10 ** chance.uniform(0.3, 1.3)  # clips
    if chance.random() < 0.12:
        audio = through_codec(audio, chance)
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
    parser.add_argument("--number", type=int, default=9000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    shares = -(-options.number // 100)
    with ProcessPoolExecutor(options.processes) as pool:
        seeds = [options.seed * 100_000 + share for share in range(shares)]
        made = list(pool.map(some, [options.corpus] * shares, [100] * shares, seeds))
    np.savez(options.out, x=np.concatenate([x for x, _ in made]), y=np.concatenate([y for _, y in made]))


if __name__ == "__main__":
    main()
