"""The messages inside a session: commands from the protocol to the audio path, events from the recognizer back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Configure:
    """Change options of this session. The keys are the fields of `sttd.config.config.SessionOptions`."""

    options: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Audio:
    """A binary message of the client, or a part of one, in the session's audio format."""

    data: bytes
    complete: bool = True
    """Whether `data` is the end of the message."""


@dataclass(frozen=True, slots=True)
class Flush:
    """Force a final now; the session goes on."""


@dataclass(frozen=True, slots=True)
class EndOfStream:
    """Flush, then close."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """A message that is invalid in this protocol."""

    reason: str


Command = Configure | Audio | Flush | EndOfStream | Unusable


@dataclass(frozen=True, slots=True)
class Word:
    """A recognized word. `start` and `end` are in seconds since the stream began; `confidence` is 0 to 1."""

    word: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded and the session's recognizer exists."""


@dataclass(frozen=True, slots=True)
class Partial:
    """A hypothesis about the text of the open utterance. It may change."""

    text: str


@dataclass(frozen=True, slots=True)
class Final:
    """The text of an utterance. It does not change any more."""

    text: str
    words: tuple[Word, ...] = ()
    lag: float = 0.0
    """Seconds of audio that were received but not decoded."""
    engine: str = ""
    """The provider of the text; empty if only the configured provider can have found it."""
    fallback_from: str = ""
    """The cloud provider that failed, if another provider took over."""
    start: float = 0.0
    end: float = 0.0
    """The utterance's begin and end in seconds since the stream began. `end` is 0 if it is not known."""
    language: str = ""
    """The code of the language that was recognized; empty if it is not known."""
    late: bool = False
    """Whether the MessageDone events of this utterance's messages may come before this final."""


class Problem(StrEnum):
    """The code of an error, for clients that set `codes`."""

    MESSAGE = "bad_message"
    OPTION = "bad_option"
    NO_MODEL = "no_model"
    MODEL = "model_failed"
    RECOGNIZER = "recognizer_failed"
    PROVIDER = "provider_failed"
    STALLED = "stalled"
    IDLE = "idle"
    QUOTA = "quota"


class Ending(StrEnum):
    """Why a session ends. Each wire maps it to its own close code."""

    DONE = "done"
    GOING_AWAY = "going_away"
    POLICY = "policy"
    MODEL_MISSING = "model_missing"
    MODEL_FAILED = "model_failed"
    RECOGNIZER_FAILED = "recognizer_failed"
    STALLED = "stalled"
    IDLE = "idle"
    QUOTA = "quota"


@dataclass(frozen=True, slots=True)
class Failed:
    """An error."""

    message: str
    code: Problem
    fatal: bool = False
    """Whether the session closes."""
    lasting: bool = False
    """Whether later utterances will fail in the same way."""


@dataclass(frozen=True, slots=True)
class Warned:
    """Something about the client's audio or options that is likely to give bad text."""

    message: str


@dataclass(frozen=True, slots=True)
class MessageDone:
    """All text of one message has been sent.

    There is one for every audio message of the client, in their order. For a protocol that answers recordings, the mark
    of a message waits while an utterance may be open: for its end, or for the next message.
    """


@dataclass(frozen=True, slots=True)
class FlushDone:
    """Everything before a Flush of the client has been said."""


@dataclass(frozen=True, slots=True)
class SessionOver:
    """The session ends: nothing follows."""


Event = Ready | Partial | Final | Failed | Warned | MessageDone | FlushDone | SessionOver
