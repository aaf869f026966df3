"""A recognizer's library alone: its resident memory in MB with the model loaded, and after some recordings.

python -m bench.peers.library {faster_whisper,vosk} MODEL_FOLDER < pickled list of s16 recordings at 16 kHz
"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def vosk(folder: str) -> Callable[[bytes], object]:
    import vosk

    recognizer = vosk.KaldiRecognizer(vosk.Model(folder), 16000)

    def transcribe(pcm: bytes) -> object:
        for at in range(0, len(pcm), 3200):
            recognizer.AcceptWaveform(pcm[at : at + 3200])
        return recognizer.FinalResult()

    return transcribe


def faster_whisper(folder: str) -> Callable[[bytes], object]:
    import numpy as np
    from faster_whisper import WhisperModel

    model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=1, num_workers=2)
    return lambda pcm: list(model.transcribe(np.frombuffer(pcm, np.int16) / np.float32(32768))[0])


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


if __name__ == "__main__":
    transcribe = {"vosk": vosk, "faster_whisper": faster_whisper}[sys.argv[1]](sys.argv[2])
    print(resident_mb())
    for pcm in pickle.load(sys.stdin.buffer):
        transcribe(pcm)
    print(resident_mb())
