"""The same input gives the same bits on every machine: digests that were made on x86-64 and checked on aarch64."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from sttd._vad import VoiceGate
from sttd.audio.format import converter

CONVERTED = {
    8000: "e230f939bf776cc5",
    11025: "b18fa9194f8c8815",
    12000: "7a80389f0fe9a5a6",
    16000: "a74600f897da53fb",
    22050: "7dff4a55671e6753",
    24000: "0ae9679a25746ac5",
    32000: "e85dff3c4c0d3c2e",
    44100: "16718d74fa0dc898",
    48000: "47ef9236272274f5",
    88200: "0c7a2f93c21370cb",
    96000: "5c840cc7c4c899a3",
    176400: "c28bf0e9c89d97af",
    192000: "d097d2b0cd8c8f21",
}
FEATURES = "b6f304160c8c8f62"
PROBABILITIES = "61808d62bdc69e47"


def signal(count: int) -> np.ndarray:
    """Whole numbers only, so that no mathematical library has a say: noise that swells, over two triangle waves."""
    state = np.uint32(1)
    noise = np.empty(count, np.int64)
    multiplier, increment = np.uint32(1664525), np.uint32(1013904223)
    with np.errstate(over="ignore"):
        for index in range(count):
            state = state * multiplier + increment
            noise[index] = state >> np.uint32(18)
    time = np.arange(count)
    swell = np.abs(time % 8000 - 4000)
    waves = np.abs(time % 107 - 53) * 150 + np.abs(time % 29 - 14) * 200
    return np.asarray(((noise - 8192) * swell // 4000 + waves * (time // 16000 % 2) - 4000).astype(np.int16))


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return signal(48000)


@pytest.mark.parametrize("rate", CONVERTED)
def test_resampling(sound: np.ndarray, rate: int) -> None:
    stream = converter(rate, "pcm_s16le", 1)
    assert hashlib.sha256(stream.feed(sound.tobytes()) + stream.flush()).hexdigest()[:16] == CONVERTED[rate]


def test_the_gate(sound: np.ndarray) -> None:
    frames = [sound[at : at + 320].tobytes() for at in range(0, len(sound), 320)]
    gate = VoiceGate()
    features = b"".join(gate.features(frame) for frame in frames)
    assert hashlib.sha256(features).hexdigest()[:16] == FEATURES
    gate = VoiceGate()
    probabilities = []
    for frame in frames:
        gate.is_speech(frame)
        probabilities += [gate.instant, gate.probability]
    assert hashlib.sha256(np.array(probabilities, "<f4").tobytes()).hexdigest()[:16] == PROBABILITIES
