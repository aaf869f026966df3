"""The voice gate's framing: which 20 ms frames of a stream sound like speech."""

from __future__ import annotations

from sttd._pcm import VoiceGate
from sttd.audio.format import RATE, SAMPLE_BYTES

FRAME_MS = 20
FRAME_BYTES = RATE * SAMPLE_BYTES * FRAME_MS // 1000


def frames(milliseconds: int) -> int:
    """How many frames cover a time, rounded up."""
    return -(-milliseconds // FRAME_MS)


def voice_gate(threshold_db: float) -> VoiceGate:
    """A gate for a new stream."""
    return VoiceGate(threshold_db)
