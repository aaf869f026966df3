"""A protocol and two engines, each a class and a line, in a program that then is sttd."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from sttd.engines.base import BatchEngine, Decoder, Hypothesis, StreamingEngine, Transcript
from sttd.events import Event, Final, MessageDone, Partial
from sttd.protocols.base import Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sttd.config.config import SessionOptions


class EveryMessage(Protocol):
    """Answers every audio message with one text: the final, or else what has been heard so far."""

    name: ClassVar[str] = "every_message"
    title: ClassVar[str] = "every one"
    path: ClassVar[str] = "/every-message"
    answers_messages: ClassVar[bool] = True

    def __init__(self) -> None:
        self._answer = ""

    def encode(self, event: Event, options: SessionOptions) -> Sequence[str]:
        match event:
            case Partial(text):
                self._answer = f"... {text}"
            case Final(text):
                self._answer = text
            case MessageDone():
                answer, self._answer = self._answer, ""
                return (answer,)
        return ()


class Measure(BatchEngine):
    """Its text is how many seconds it was given."""

    name: ClassVar[str] = "measure"
    extra: ClassVar[str] = "measure"
    library: ClassVar[str] = "json"

    workers = 1
    partial_interval_s = 1.0

    def load(self) -> None:
        assert (self.model / "model").read_text() == "data"

    def transcribe(
        self,
        pcm: bytes,
        options: SessionOptions,
        *,
        final: bool = True,
        live: bool = True,
        context: str = "",
        confidence: float = 1.0,
    ) -> Transcript:
        return Transcript(f"{len(pcm) / 32000:.1f} s")


class Count(StreamingEngine):
    """Its text is how many pieces it was given."""

    name: ClassVar[str] = "count"
    extra: ClassVar[str] = "count"
    library: ClassVar[str] = "json"

    workers = 1

    def load(self) -> None:
        assert (self.model / "model").read_text() == "data"

    def decoder(self, options: SessionOptions) -> Decoder:
        return Counter()


class Counter(Decoder):
    def __init__(self) -> None:
        self._pieces = 0

    def accept(self, pcm: bytes, *, partial: bool) -> Hypothesis | None:
        self._pieces += 1
        return Hypothesis(Transcript(f"{self._pieces} pieces"), final=False) if partial else None

    def finish(self, confidence: float = 1.0) -> Transcript:
        pieces, self._pieces = self._pieces, 0
        return Transcript(f"{pieces} pieces")
