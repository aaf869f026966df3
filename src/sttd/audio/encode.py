"""Encode an utterance as a file to upload: FLAC if an encoder is installed, else WAV."""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass

from sttd.audio.format import RATE, SAMPLE_BYTES


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to upload."""

    name: str
    content: bytes
    media_type: str


def encoded(pcm: bytes) -> Upload:
    """Encode PCM (16-bit, 16 kHz, mono) without loss. Takes some milliseconds: call it in a thread."""
    try:
        import numpy as np
        import soundfile
    except (ImportError, OSError):  # OSError: libsndfile is missing
        return Upload("audio.wav", _wav(pcm), "audio/wav")
    file = io.BytesIO()
    soundfile.write(file, np.frombuffer(pcm, np.int16), RATE, format="FLAC", subtype="PCM_16")
    return Upload("audio.flac", file.getvalue(), "audio/flac")


def _wav(pcm: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(SAMPLE_BYTES)
        writer.setframerate(RATE)
        writer.writeframes(pcm)
    return file.getvalue()
