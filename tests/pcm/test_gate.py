"""The voice gate's decisions, and the ring buffer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sttd._pcm import RingBuffer, VoiceGate
from sttd.audio.vad import FRAME_BYTES
from tests.support import Clip, at_16k_mono, shared_clips


def decisions(pcm: bytes, gate: VoiceGate | None = None) -> list[bool]:
    gate = gate or VoiceGate()
    return [gate.is_speech(pcm[at : at + FRAME_BYTES]) for at in range(0, len(pcm) - FRAME_BYTES + 1, FRAME_BYTES)]


def noise(level: float, seconds: float, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).normal(0, level, int(16000 * seconds)).astype(np.int16).tobytes()


def test_silence_is_no_speech() -> None:
    assert not any(decisions(bytes(32000 * 5)))
    assert not any(decisions(noise(5, 5)))


def test_steady_noise_becomes_the_floor() -> None:
    assert not any(decisions(noise(400, 10))[250:]), "after five seconds at the latest"


def test_speech_is_heard_in_silence_and_over_noise(two_cities: Clip) -> None:
    pcm = at_16k_mono(two_cities)
    assert 0.5 < np.mean(decisions(pcm)) < 0.95
    quiet_noise = np.frombuffer(noise(100, len(pcm) / 32000), np.int16)[: len(pcm) // 2]
    mixed = (np.frombuffer(pcm, np.int16).astype(int) + quiet_noise).clip(-32768, 32767).astype(np.int16).tobytes()
    gate = VoiceGate()
    decisions(noise(100, 5, seed=2), gate)
    assert 0.4 < np.mean(decisions(mixed, gate)) < 0.95


def test_labelled_speech_is_mostly_found() -> None:
    clips = shared_clips("en/")
    if not clips:
        pytest.skip("../shared/speech is missing")
    assert all(any(decisions(at_16k_mono(clip))) for clip in clips), "no utterance is missed altogether"


def test_reset_forgets_everything() -> None:
    gate = VoiceGate()
    fresh = decisions(noise(3000, 1), gate)
    gate.reset()
    assert decisions(noise(3000, 1), gate) == fresh


@pytest.mark.parametrize("frame", [b"", b"\0", bytes(641)])
def test_a_frame_is_whole_samples(frame: bytes) -> None:
    with pytest.raises(ValueError, match="16-bit"):
        VoiceGate().is_speech(frame)


@given(
    capacity=st.integers(1, 50),
    appended=st.lists(st.lists(st.integers(-32768, 32767), max_size=120), max_size=12),
    wanted=st.integers(0, 80),
)
def test_ring_buffer_keeps_the_newest(capacity: int, appended: list[list[int]], wanted: int) -> None:
    ring = RingBuffer(capacity)
    kept: list[int] = []
    for samples in appended:
        ring.append(np.array(samples, np.int16).tobytes())
        kept = (kept + samples)[-capacity:]
        assert len(ring) == len(kept)
        assert np.frombuffer(ring.last(wanted), np.int16).tolist() == kept[len(kept) - min(wanted, len(kept)) :]
    ring.clear()
    assert len(ring) == 0
    assert ring.last(5) == b""


def test_ring_buffer_does_not_hold_on_to_what_it_was_given() -> None:
    data = bytearray(b"\1\2" * 10)
    ring = RingBuffer(20)
    ring.append(data)
    data.clear()  # raises BufferError while somebody has a view of it
    assert ring.last(10) == b"\1\2" * 10


def test_ring_buffer_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="positive"):
        RingBuffer(0)
    with pytest.raises(ValueError, match="16-bit"):
        RingBuffer(5).append(b"abc")
    with pytest.raises(ValueError, match="negative"):
        RingBuffer(5).last(-1)
