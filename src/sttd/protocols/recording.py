"""A whole recording: what is found in it, for the HTTP answers that are made of it."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from sttd.events import Event, Failed, Final
from sttd.protocols.base import Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sttd.config.config import SessionOptions


class Recording(Protocol):
    """Its messages to the client are JSON: an Utterance, or `{"message": ..., "code": ...}` of a failure."""

    name: ClassVar[str] = "recording"
    title: ClassVar[str] = "recordings"
    path: ClassVar[str] = ""  # it is not spoken over WebSockets
    defaults: ClassVar[Mapping[str, object]] = MappingProxyType(
        {"partials": False, "min_silence_ms": 1000, "max_utterance_ms": 28000, "arrival_pause_ms": 0}
    )
    """Nobody waits for the end of an utterance, so utterances are longer than those of live speech: the more a model
    hears at once, the better. Whisper hears 30 s."""
    live: ClassVar[bool] = False

    def encode(self, event: Event, options: SessionOptions) -> Sequence[str]:  # noqa: ARG002
        """Return a message for a final or a failure."""
        match event:
            case Final(text, words):
                found = {
                    "text": text,
                    "start": event.start,
                    "end": event.end,
                    "words": [asdict(word) for word in words],
                    "language": event.language,
                }
                return (json.dumps(found),)
            case Failed(message, code):
                return (json.dumps({"message": message, "code": str(code)}),)
        return ()


@dataclass(frozen=True, slots=True)
class Utterance:
    """What was said between two pauses. Times are in seconds since the recording began."""

    text: str
    start: float
    end: float
    words: Sequence[Mapping[str, Any]]
    language: str = ""
    """The code of the language that was recognized; empty if it is not known."""

    @classmethod
    def read(cls, message: Mapping[str, Any]) -> Utterance:
        """Return the utterance of a message. Without a known end it ends with its last word, or is a second long."""
        words = message["words"]
        start = float(words[0]["start"] if words else message["start"])
        end = float(words[-1]["end"] if words else message["end"] or start + 1.0)
        return cls(message["text"], round(start, 3), round(max(start, end), 3), words, message["language"])


def language_of(found: Sequence[Utterance]) -> str:
    """Return the language in which most of a recording was recognized; empty if it is not known."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for utterance in found:
        seconds[utterance.language] += utterance.end - utterance.start
    return max(seconds, key=seconds.__getitem__, default="")
