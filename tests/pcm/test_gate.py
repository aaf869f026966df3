"""The voice gate: what it computes against plain double precision, and what it decides about real sound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sttd._vad import VoiceGate
from tests.pcm import reference
from tests.support import Clip, at_16k_mono, shared_clips

FRAME_BYTES = 640
WORDS = (1400, 5300, 7000, 8800, 9400, 11200, 13500, 15100, 17500, 18400, 21300)
"""Milliseconds into two_cities.wav from which 400 hold speech."""


def frames(pcm: bytes) -> list[bytes]:
    return [pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm) - FRAME_BYTES + 1, FRAME_BYTES)]


def decisions(pcm: bytes, gate: VoiceGate | None = None) -> list[bool]:
    gate = gate or VoiceGate()
    return [gate.is_speech(frame) for frame in frames(pcm)]


def noise(level: float, seconds: float, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).normal(0, level, int(16000 * seconds)).astype(np.int16).tobytes()


def mixed(clip: bytes, other: bytes) -> bytes:
    total = np.frombuffer(clip, np.int16).astype(int) + np.frombuffer(other, np.int16)[: len(clip) // 2]
    return total.clip(-32768, 32767).astype(np.int16).tobytes()


def test_features_are_those_of_the_plain_reference(two_cities: Clip) -> None:
    pcm = at_16k_mono(two_cities)[: 32000 * 3]
    gate = VoiceGate()
    ours = np.array([np.frombuffer(gate.features(frame), np.float32) for frame in frames(pcm)])
    theirs = reference.features(np.frombuffer(pcm, np.int16).astype(float))
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 2e-3


def test_the_network_computes_what_its_reference_does(two_cities: Clip) -> None:
    """In speech, and across quiet in which its memory is renewed several times."""
    pcm = at_16k_mono(two_cities)[: 32000 * 3] + bytes(32000 * 12) + at_16k_mono(two_cities)[: 32000 * 3]
    pcm = mixed(pcm, noise(50, len(pcm) / 32000))
    gate = VoiceGate()
    ours = []
    for frame in frames(pcm):
        gate.is_speech(frame)
        ours.append((gate.instant, gate.probability))
    instants = reference.instants(reference.features(np.frombuffer(pcm, np.int16).astype(float)))
    theirs = np.column_stack([instants, reference.smoothed(instants)])
    assert np.abs(np.array(ours) - theirs).max() < 0.01


def test_speech_is_heard_in_silence_and_over_noise(two_cities: Clip) -> None:
    pcm = at_16k_mono(two_cities)
    assert 0.6 < np.mean(decisions(pcm)) < 0.95
    assert 0.5 < np.mean(decisions(mixed(pcm, noise(60, len(pcm) / 32000 + 1)))) < 0.95


@pytest.mark.parametrize("level", [0, 1, 5, 50, 400, 3000])
def test_steady_noise_and_silence_are_no_speech(level: float) -> None:
    assert not any(decisions(noise(level, 10)))


def test_speech_after_long_silence_is_heard_at_once(two_cities: Clip) -> None:
    pcm = at_16k_mono(two_cities)[: 32000 * 3]
    fresh = decisions(pcm)
    later = decisions(bytes(32000 * 60) + pcm)[60 * 50 :]
    assert np.mean(np.array(fresh) == np.array(later)) > 0.95


def loud(pcm: bytes) -> bytes:
    """With its peak at half of full scale."""
    samples = np.frombuffer(pcm, np.int16).astype(float)
    return bytes(np.rint(samples * 16384 / np.abs(samples).max()).astype(np.int16).tobytes())


def hum(level: float, seconds: float) -> bytes:
    tone = 1.4 * level * np.sin(2 * np.pi * 50 * np.arange(int(16000 * seconds)) / 16000)
    return mixed(tone.astype(np.int16).tobytes(), noise(2, seconds))


@pytest.mark.parametrize("lead", [0.5, 10, 120])
@pytest.mark.parametrize("kind", ["hiss of 5", "hiss of 20", "hiss of 100", "hum", "silence"])
def test_a_word_is_heard_after_any_time_of_quiet(kind: str, lead: float, two_cities: Clip) -> None:
    levels = {"hiss of 5": 5, "hiss of 20": 20, "hiss of 100": 100, "silence": 0}
    quiet = hum(50, lead + 2) if kind == "hum" else noise(levels[kind], lead + 2)
    missed = []
    for start in WORDS:
        word = loud(at_16k_mono(two_cities)[start * 32 : (start + 400) * 32])
        begins = int(lead * 50) * FRAME_BYTES
        over = mixed(word, quiet[begins:])
        pcm = quiet[:begins] + over + quiet[begins + len(over) :]
        if not any(decisions(pcm)[int(lead * 50) :]):
            missed.append(start)
    assert not missed, "milliseconds at which the words begin that were not heard"


def test_every_recorded_utterance_is_heard() -> None:
    clips = shared_clips("en/")
    if not clips:
        pytest.skip("../shared/speech is missing")
    assert all(any(decisions(at_16k_mono(clip))) for clip in clips), "no utterance is missed altogether"


def test_a_frame_may_lie_at_an_odd_address(two_cities: Clip) -> None:
    pcm = at_16k_mono(two_cities)[: 32000 * 2]
    shifted = memoryview(b"?" + pcm)[1:]
    gate = VoiceGate()
    assert [gate.is_speech(shifted[at : at + 640]) for at in range(0, len(pcm), 640)] == decisions(pcm)


def test_a_higher_threshold_calls_less_speech(two_cities: Clip) -> None:
    pcm = mixed(at_16k_mono(two_cities), noise(100, 60))
    shares = [np.mean(decisions(pcm, VoiceGate(threshold))) for threshold in (0.1, 0.5, 0.9)]
    assert shares[0] > shares[1] > shares[2]


def test_gates_do_not_share_state(two_cities: Clip) -> None:
    pcm = at_16k_mono(two_cities)[: 32000 * 2]
    alone = decisions(pcm)
    one, other = VoiceGate(), VoiceGate()
    together = []
    for frame, disturbance in zip(frames(pcm), frames(noise(5000, 3)), strict=False):
        together.append(one.is_speech(frame))
        other.is_speech(disturbance)
    assert together == alone


@given(st.lists(st.sampled_from([b"\0\0", b"\xff\x7f", b"\0\x80", b"\1\0"]), min_size=320, max_size=320))
def test_no_samples_give_anything_but_a_probability(samples: list[bytes]) -> None:
    gate = VoiceGate()
    for _ in range(5):
        gate.is_speech(b"".join(samples))
        assert 0 <= gate.probability <= 1
        assert 0 <= gate.power <= 32768**2


@pytest.mark.parametrize("frame", [b"", b"\0", bytes(641), bytes(320)])
def test_a_frame_has_20_ms(frame: bytes) -> None:
    with pytest.raises(ValueError, match="320 16-bit samples"):
        VoiceGate().is_speech(frame)
    with pytest.raises(ValueError, match="320 16-bit samples"):
        VoiceGate().features(frame)


@pytest.mark.parametrize("threshold", [0, 1, -1, 7])
def test_a_threshold_is_a_probability(threshold: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        VoiceGate(threshold)
