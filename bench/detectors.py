"""The contestants that tell speech from the rest: sttd's gate, webrtcvad and Silero, each behind the same face."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bench.corpus import FRAME, FULL_SCALE, optional
from sttd._vad import VoiceGate
from sttd.audio.format import RATE

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.corpus import Mask, Pcm
    from bench.scores import Floats

    Judge = Callable[[bytes], tuple[float, bool]]


class Detector(Protocol):
    """Judges a stream, `samples` at a time."""

    name: str
    samples: int

    def start(self) -> Judge:
        """A judge of a new stream: s16 bytes in, a score from 0 to 1 and the decision at the default threshold out."""

    def bare(self) -> Callable[[bytes], object]:
        """The same with nothing around the detector's own call, for timing."""


class Gate:
    """sttd's own."""

    name = "sttd"
    samples = FRAME

    def start(self) -> Judge:
        gate = VoiceGate()

        def judge(frame: bytes) -> tuple[float, bool]:
            decision = gate.is_speech(frame)
            return gate.probability, decision

        return judge

    def bare(self) -> Callable[[bytes], object]:
        return VoiceGate().is_speech


class WebRtc:
    """webrtcvad in one of its modes, 0 (lets most through) to 3. It gives no score: the decision stands for one."""

    samples = FRAME

    def __init__(self, mode: int) -> None:
        self.name = f"webrtcvad {mode}"
        self._mode = mode

    def start(self) -> Judge:
        is_speech = self.bare()

        def judge(frame: bytes) -> tuple[float, bool]:
            decision = bool(is_speech(frame))
            return float(decision), decision

        return judge

    def bare(self) -> Callable[[bytes], object]:
        is_speech = optional("webrtcvad").Vad(self._mode).is_speech
        return lambda frame: is_speech(frame, RATE)


class Silero:
    """Silero v6 on onnxruntime, one thread, as faster-whisper brings it: 512 new samples after 64 of the last ones."""

    name = "Silero v6"
    samples = 512

    def __init__(self, session: Any) -> None:
        self._session = session

    def start(self) -> Judge:
        window = np.zeros((1, 576), np.float32)
        state = {name: np.zeros((1, 1, 128), np.float32) for name in ("h", "c")}

        def judge(samples: bytes) -> tuple[float, bool]:
            window[0, :64] = window[0, 512:]
            np.divide(np.frombuffer(samples, np.int16), np.float32(FULL_SCALE), out=window[0, 64:])
            probability, state["h"], state["c"] = self._session.run(None, {"input": window, **state})
            return float(probability[0]), bool(probability[0] > 0.5)

        return judge

    def bare(self) -> Callable[[bytes], object]:
        return self.start()


def silero() -> Silero | None:
    """Silero, where faster-whisper and onnxruntime are installed."""
    vad = optional("faster_whisper.vad")
    if vad is None or optional("onnxruntime") is None:
        return None
    try:
        return Silero(vad.get_vad_model().session)
    except Exception:  # a build of onnxruntime that this processor, or its emulation, cannot run
        return None


def webrtc() -> list[WebRtc]:
    """All four modes, where webrtcvad is installed."""
    return [WebRtc(mode) for mode in range(4)] if optional("webrtcvad") else []


def judge_all(detector: Detector, pcm: Pcm) -> tuple[Floats, Mask]:
    """Scores and decisions for the whole frames of 20 ms; a longer window's holds for the frames centred in it."""
    judge = detector.start()
    size = detector.samples
    count = len(pcm) // FRAME
    padded = np.append(pcm, np.zeros(-len(pcm) % size, np.int16)).reshape(-1, size)
    found = [judge(window.tobytes()) for window in padded]
    window_of = (np.arange(count) * FRAME + FRAME // 2) // size
    scores, decisions = np.array([found[window] for window in window_of]).reshape(-1, 2).T
    return scores, decisions.astype(bool)
