"""The interface of a session protocol, and the control messages that both documented protocols share."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from sttd.events import Audio, Command, Configure, EndOfStream, Event, Flush, Unusable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sttd.config.config import SessionOptions


MAX_CONTROL_BYTES = 256
"""The maximum length of a binary message that may be a control message."""


class Protocol(ABC):
    """One connection's side of a wire protocol; it keeps no clock and touches no socket."""

    name: ClassVar[str]
    title: ClassVar[str]
    """For people."""
    path: ClassVar[str]
    defaults: ClassVar[Mapping[str, object]] = MappingProxyType({})
    """Session options that differ from the daemon's settings, by name."""
    answers_recordings: ClassVar[bool] = False
    """Whether a message that is a recording (see sttd.audio.arrivals) gets a reply of its own, whatever follows it.

    If so, the mark of a message with an open utterance waits for the utterance's end or for the next message.
    """
    answers_messages: ClassVar[bool] = False
    """Whether every message gets an answer, even if nothing was said in it, so that no mark may wait for more audio."""
    live: ClassVar[bool] = True
    """Whether somebody waits for each text. Else other sessions' audio is decoded first."""
    tells_errors: ClassVar[bool] = True
    """Whether a client is told of errors while the session goes on."""

    def receive(self, message: str | bytes) -> Command:
        """Return what a message of the client asks for."""
        if isinstance(message, bytes):
            return (_binary_control(message) if message[:1] == b"{" else None) or Audio(message)
        return control_message(message)

    @abstractmethod
    def encode(self, event: Event, options: SessionOptions) -> Sequence[str | bytes]:
        """Return the messages to the client for `event`, perhaps none. `options`: those under which it was made."""


def _binary_control(message: bytes) -> Command | None:
    """Return the control message that a client sent as binary, as some libraries do; None if it may be audio.

    A binary message is a control message if it has at most MAX_CONTROL_BYTES bytes of valid JSON with a known `type`.
    """
    if len(message) > MAX_CONTROL_BYTES or not message.rstrip().endswith(b"}"):
        return None
    command = control_message(message.decode(errors="replace"))
    return None if isinstance(command, Unusable) else command


def control_message(text: str) -> Command:
    """Parse `{"type": "flush"}`, `{"type": "eof"}` or `{"type": "config", ...options}`."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return Unusable("a text message is not JSON")
    if not isinstance(message, dict):
        return Unusable("a text message is not a JSON object")
    options = dict(message)
    match options.pop("type", None):
        case "flush":
            return Flush()
        case "eof":
            return EndOfStream()
        case "config":
            return Configure(options)
        case _:
            return Unusable('a text message\'s "type" is none of "config", "flush", "eof"')
