"""What flows through a session: commands from a protocol towards the audio, events from a recognizer back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Configure:
    """Change options of this session, as `sttd.config.config.SessionOptions` names them."""

    options: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Audio:
    """One binary message of the client, in the session's audio format, or part of a long one."""

    data: bytes
    complete: bool = True
    """Whether the message ends here."""


@dataclass(frozen=True, slots=True)
class Flush:
    """Force a final now; the session goes on."""


@dataclass(frozen=True, slots=True)
class EndOfStream:
    """Flush, then close."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """A message that means nothing in this protocol, and why."""

    reason: str


Command = Configure | Audio | Flush | EndOfStream | Unusable


@dataclass(frozen=True, slots=True)
class Word:
    """One recognized word; `start` and `end` are seconds since the stream began, `confidence` is 0 to 1."""

    word: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded and the session's recognizer exists."""


@dataclass(frozen=True, slots=True)
class Partial:
    """A hypothesis about the utterance so far, which may change."""

    text: str


@dataclass(frozen=True, slots=True)
class Final:
    """The text of an utterance, which never changes."""

    text: str
    words: tuple[Word, ...] = ()
    lag: float = 0.0
    """Seconds of audio that had come and were not decoded."""
    engine: str = ""
    """The provider that found the text, where it may have been another than the configured one."""
    fallback_from: str = ""
    """The provider that it stood in for."""
    late: bool = False
    """Whether the marks of its messages were placed before it was found."""


class Problem(StrEnum):
    """What kind of thing went wrong, for clients that ask for `codes`."""

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
    """Why a session ends. Each wire says it in its own way."""

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
    """Something went wrong."""

    message: str
    code: Problem
    fatal: bool = False
    """Whether the session closes."""
    lasting: bool = False
    """Whether what comes next will fail in the same way."""


@dataclass(frozen=True, slots=True)
class Warned:
    """The client's audio has something that makes for bad text."""

    message: str


@dataclass(frozen=True, slots=True)
class MessageDone:
    """Everything that the audio of one message gave has been said.

    There is one for every audio message of the client, in their order. While an utterance is open at the end of a
    message, its mark waits for the end of the utterance or for the next message.
    """


@dataclass(frozen=True, slots=True)
class SessionOver:
    """Nothing follows but what says why the session ends."""


Event = Ready | Partial | Final | Failed | Warned | MessageDone | SessionOver
