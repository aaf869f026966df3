"""The bare recognizer that sttd's vosk provider is compared with: warm, in a loop, without a server."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.corpus import Missing, optional
from bench.servers import store
from sttd.audio.format import RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.load import Turn

PIECE = RATE // 10 * 2
TAIL = RATE  # half a second, in bytes: the silence after which sttd would end the utterance


def model() -> Any:
    vosk = optional("vosk")
    folder = Path(store()) / "vosk/vosk-small-ko"
    if vosk is None or not folder.exists():
        raise Missing("the package vosk" if vosk is None else "the model vosk-small-ko")
    vosk.SetLogLevel(-1)
    return vosk.Model(str(folder))


def decode(recognizer: Any, pcm: bytes) -> str:
    texts = [
        json.loads(recognizer.Result())["text"]
        for at in range(0, len(pcm), PIECE)
        if recognizer.AcceptWaveform(pcm[at : at + PIECE])
    ]
    return " ".join((*texts, json.loads(recognizer.FinalResult())["text"])).strip()


def bare_finals(work: Sequence[Turn]) -> str:
    """How long the last piece and FinalResult take on a recognizer that has heard the recordings before."""
    recognizer = optional("vosk").KaldiRecognizer(model(), RATE)
    times = []
    for again in range(2):
        for turn in work:
            pcm = turn.pcm[: int(turn.speech_end * RATE) * 2 + TAIL]
            for at in range(0, len(pcm) - PIECE, PIECE):
                recognizer.AcceptWaveform(pcm[at : at + PIECE])
            started = time.perf_counter()
            recognizer.AcceptWaveform(pcm[-PIECE:])
            recognizer.FinalResult()
            if again:
                times.append(1000 * (time.perf_counter() - started))
    middle, high = np.percentile(times, [50, 95])
    return f"The bare recognizer, warm, needs {middle:.0f} ms (p95 {high:.0f}) for the last 100 ms and its result."
