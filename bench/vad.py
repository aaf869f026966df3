"""The voice gate beside webrtcvad and Silero v6: accuracy, what noise wakes, cost, and what the gate saves."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from bench import judged, scores
from bench.corpus import FULL_SCALE, at_16k, clips, day, rms
from bench.detectors import Detector, Gate, Silero, judge_all, silero, webrtc
from bench.plot import Axis, Curve, svg
from bench.report import NOT_INSTALLED, Section, machine, or_missing, table
from bench.timing import ROUNDS
from bench.vad_cost import cost_plot, cost_table
from sttd.audio.format import RATE, seconds
from sttd.audio.pipeline import Pipeline, Speech, UtteranceStart
from sttd.config.config import SessionOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.corpus import Mask
    from bench.judged import Judged
    from bench.scores import Floats

OURS, SILERO = Gate.name, Silero.name
CASCADE = f"{OURS}, else {SILERO}"
UNSURE = (0.1, 0.9)  # probabilities between which the cascade asks Silero
OTHERS = (SILERO, *(f"webrtcvad {mode}" for mode in range(4)))
POOLS = ("inner", "20-0 dB", "no babble")
QUIET_NOISE = -45  # dBFS


def run(*, full: bool) -> Section:
    detectors: list[Detector] = [Gate(), *filter(None, [silero()]), *webrtc()]
    plots = {"vad-cost.svg": cost_plot()}
    text = f"""{machine("webrtcvad", "faster-whisper", "onnxruntime", "numpy")}.

### Accuracy

Over frames of 20 ms, decisions at each contestant's default threshold.

- `labelled`: the recordings of `../shared/speech/vad`; `inner`: without the frames within 100 ms of a label's edge.
- The rest: {"all" if full else judged.QUICK} English utterances between 2 s of noise of one step on either side,
  `clean` and each with a noise clip at so many dB below the speech. The label is Silero's decision on the clean signal,
  so that Silero's own figures say how far noise moves it. `no babble`: all mixtures but those with the one noise that
  is made of voices.

{or_missing(lambda: accuracy(detectors, plots, full=full))}

### What noise wakes

Noise clips in which 5 of any 5 frames in a row (100 ms), or 4 of 5, are called speech.

{or_missing(lambda: woken(detectors))}

### Cost

us of processor time per 20 ms of audio, median [min-max] of {ROUNDS} rounds; a window of Silero's is 32 ms.

{cost_table()}

![Cost](plots/vad-cost.svg)

### What the gate saves

Ten minutes, a tenth of them utterances of `../shared/speech/en`, through the pipeline: what reaches a recognizer.

{or_missing(saved)}"""
    return Section("vad", "Voice gate", text, plots)


def accuracy(detectors: list[Detector], plots: dict[str, str], *, full: bool) -> str:
    """The table, and ROC plots put into `plots`."""
    heard = judged.conditions(detectors, full=full)
    best = best_threshold(heard)
    tuned = f"{OURS} at {best:.2f}"
    for one in heard.values():
        probability, _ = one.found[OURS]
        one.found[tuned] = probability, probability > best
        if SILERO in one.found:
            one.found[CASCADE] = cascade(probability, one.found[SILERO][0])
    rows = [
        row
        for figure, measure in {"AUC": area, "balanced accuracy": balanced_accuracy, "F1": f1}.items()
        for row in rows_of(figure, [OURS, *([tuned] if measure is not area else []), CASCADE, *OTHERS], measure, heard)
    ]
    images = []
    for level in (5, 0):
        if mixture := heard.get(f"{level} dB"):
            plots[f"vad-roc-{level}db.svg"] = roc_plot(mixture, f"Speech {level} dB over noise")
            images.append(f"![ROC](plots/vad-roc-{level}db.svg)")
    return f"""{table(["figure", "contestant", *heard], rows)}

`{tuned}`: its probability alone, against the threshold that gives the best mean balanced accuracy here; the gate
itself holds on a little longer. `{CASCADE}`: Silero is asked where that probability lies between {UNSURE[0]} and
{UNSURE[1]}, which is {asked(heard)} of the frames; it would have to hear all of them to be able to answer.

{chr(10).join(images)}"""


def unsure(probability: Floats) -> Mask:
    return (probability > UNSURE[0]) & (probability < UNSURE[1])


def cascade(probability: Floats, silero_says: Floats) -> tuple[Floats, Mask]:
    low, high = UNSURE
    scored = np.where(unsure(probability), low + (high - low) * silero_says, probability)
    return scored, scored > (low + high) / 2


def asked(heard: dict[str, Judged]) -> str:
    """The share of all frames in which our gate is unsure, least and most over the conditions."""
    shares = [float(unsure(one.found[OURS][0]).mean()) for one in heard.values()]
    return f"{min(shares):.0%} to {max(shares):.0%}"


def area(one: Judged, name: str) -> float:
    return scores.roc(one.labels, one.found[name][0]).area


def balanced_accuracy(one: Judged, name: str) -> float:
    return scores.balanced_accuracy(one.labels, one.found[name][1])


def f1(one: Judged, name: str) -> float:
    return scores.f1(one.labels, one.found[name][1])


def rows_of(
    figure: str, names: list[str], measure: Callable[[Judged, str], float], heard: dict[str, Judged]
) -> Iterator[list[str]]:
    """A row for each contestant, and one for how far ours is from Silero."""
    there = next(iter(heard.values())).found
    for name in names:
        if name in there:
            yield [figure, name, *(f"{measure(one, name):.3f}" for one in heard.values())]
        else:
            yield [figure, name, *(NOT_INSTALLED for _ in heard)]
    if SILERO in there:
        gaps = (measure(one, OURS) - measure(one, SILERO) for one in heard.values())
        yield [figure, f"{OURS} - {SILERO}", *(f"{gap:+.3f}" for gap in gaps)]


def best_threshold(heard: dict[str, Judged]) -> float:
    """Of our probability: where the mean balanced accuracy over the conditions is best."""
    each = [one for name, one in heard.items() if name not in POOLS]

    def mean_accuracy(threshold: float) -> float:
        return fmean(scores.balanced_accuracy(one.labels, one.found[OURS][0] > threshold) for one in each)

    return float(max(np.linspace(0.02, 0.98, 49), key=mean_accuracy))


def roc_plot(one: Judged, title: str) -> str:
    curves = []
    for name in (OURS, *OTHERS):
        if name in one.found:
            curve = scores.roc(one.labels, one.found[name][0])
            dots = name.startswith("webrtcvad")  # its curve has one point between the corners
            last = len(curve.hits) - 1
            points = [1] if dots else np.linspace(0, last, min(last + 1, 400)).astype(int)
            curves.append(Curve(name, curve.false_alarms[points].tolist(), curve.hits[points].tolist(), dots))
    ticks = [tick / 10 for tick in range(11)]
    x, y = Axis("share of other frames that pass", ticks), Axis("share of speech that passes", ticks)
    return svg(title, x, y, curves, legend=240)


def woken(detectors: list[Detector]) -> str:
    noises = clips("noise", "noise")
    decisions = {
        detector.name: {clip.name: judge_all(detector, at_16k(clip))[1] for clip in noises} for detector in detectors
    }
    babble = {clip.name for clip in noises if clip.babble}
    rows = []
    for name, by_clip in decisions.items():
        five, four = ({clip for clip, found in by_clip.items() if scores.woken(found, needed)} for needed in (5, 4))
        rows.append([name, str(len(five)), str(len(four)), f"{len(five - babble)} of {len(noises) - len(babble)}"])
    ours = sorted(clip for clip, found in decisions[OURS].items() if scores.woken(found, 5))
    header = ["contestant", f"5 of 5, of {len(noises)} clips", "4 of 5", "5 of 5, no babble"]
    return f"{table(header, rows)}\n\nThese wake {OURS}: {', '.join(ours) or 'none'}."


def saved() -> str:
    """What the pipeline passes on of a day-like mix, over silence and over all the noises at a low level."""
    utterances = [at_16k(clip) for clip in clips("en", "speech")]
    rng = np.random.default_rng(judged.SEED)
    length = 600 * RATE
    noises = [at_16k(clip).astype(float) for clip in clips("noise", "noise")]
    level = FULL_SCALE * 10 ** (QUIET_NOISE / 20)
    noise = np.resize(np.concatenate([clip * (level / rms(clip)) for clip in noises]), length)
    rows = []
    for name, background in (("digital silence", np.zeros(length)), (f"noise at {QUIET_NOISE} dBFS", noise)):
        pcm, spoken = day(utterances, background, 0.1, rng)
        pipeline = Pipeline(SessionOptions())
        data = pcm.tobytes()
        segments = [segment for at in range(0, len(data), 3200) for segment in pipeline.feed(data[at : at + 3200])]
        segments += pipeline.flush()
        passed = seconds(b"".join(segment.pcm for segment in segments if isinstance(segment, Speech)))
        count = sum(isinstance(segment, UtteranceStart) for segment in segments)
        share = passed / (length / RATE)
        rows.append([name, f"{spoken:.0f} s", f"{passed:.0f} s", str(count), f"{share:.1%}", f"{1 - share:.1%}"])
    return table(["between utterances", "utterances", "passed on", "in pieces", "share", "saved"], rows)
