"""The vosk engine: streaming, one model for all sessions, a KaldiRecognizer each."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, ClassVar

from sttd.audio.format import RATE
from sttd.errors import ModelError
from sttd.events import Word
from sttd.recognizers.base import Decoder, Engine, Hypothesis, Transcript

if TYPE_CHECKING:
    from sttd.config import SessionOptions


class VoskEngine(Engine):
    """A Vosk model. Decoding releases the GIL, so one thread a core decodes one session each."""

    name: ClassVar[str] = "vosk"
    extra: ClassVar[str] = "vosk"
    library: ClassVar[str] = "vosk"
    streaming: ClassVar[bool] = True

    _model: Any = None

    @property
    def workers(self) -> int:
        """One a core."""
        return self.config.vosk.workers or len(os.sched_getaffinity(0))

    def load(self) -> None:
        """Load the model and make a recognizer of it."""
        import vosk

        vosk.SetLogLevel(-1)
        try:
            self._model = vosk.Model(str(self.model))
            vosk.KaldiRecognizer(self._model, RATE)
        except Exception as error:  # vosk raises bare Exception
            raise ModelError(f"the Vosk model in {self.model} does not load: {error}") from error

    def transcribe(
        self,
        pcm: bytes,
        options: SessionOptions,
        *,
        final: bool = True,  # noqa: ARG002
        context: str = "",  # noqa: ARG002
    ) -> Transcript:
        """A whole recording, through a recognizer of its own."""
        decoder = self.decoder(options)
        parts = []
        for start in range(0, len(pcm), RATE):
            found = decoder.accept(pcm[start : start + RATE], partial=False)
            if found:
                parts.append(found.transcript)
        parts.append(decoder.finish())
        return Transcript(
            " ".join(part.text for part in parts if part.text),
            tuple(word for part in parts for word in part.words),
        )

    def decoder(self, options: SessionOptions) -> Decoder:
        """A recognizer; making one takes about a tenth of a second."""
        import vosk

        recognizer = vosk.KaldiRecognizer(self._model, RATE)
        recognizer.SetWords(options.words)
        return VoskDecoder(recognizer)


class VoskDecoder(Decoder):
    """A KaldiRecognizer."""

    def __init__(self, recognizer: Any) -> None:
        self._recognizer = recognizer

    def accept(self, pcm: bytes, *, partial: bool) -> Hypothesis | None:
        """See Decoder."""
        if self._recognizer.AcceptWaveform(pcm):
            return Hypothesis(_transcript(self._recognizer.Result()), final=True)
        if partial:
            return Hypothesis(Transcript(json.loads(self._recognizer.PartialResult())["partial"]), final=False)
        return None

    def finish(self) -> Transcript:
        """See Decoder."""
        return _transcript(self._recognizer.FinalResult())


def _transcript(result: str) -> Transcript:
    found = json.loads(result)
    words = tuple(
        Word(item["word"], item["start"], item["end"], round(item["conf"], 3)) for item in found.get("result", ())
    )
    return Transcript(found.get("text", ""), words)
