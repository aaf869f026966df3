"""The plain-text protocol at `/api/v1/ws`: audio in, finals out as bare text. See docs/protocols.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from sttd.events import Event, Final, MessageDone, SessionOver
from sttd.protocols.base import Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sttd.config.config import SessionOptions


class PlainText(Protocol):
    """Gathers the finals of one audio message and sends them as one reply.

    Every message to the client is a transcript, so errors are only logged; an error that ends the session is the reason
    of its Close frame.
    """

    name: ClassVar[str] = "plain"
    title: ClassVar[str] = "plain text"
    path: ClassVar[str] = "/api/v1/ws"
    answers_recordings: ClassVar[bool] = True
    tells_errors: ClassVar[bool] = False

    def __init__(self) -> None:
        self._gathered: list[str] = []

    def encode(self, event: Event, options: SessionOptions) -> Sequence[str]:  # noqa: ARG002
        """Return the gathered text when a message or the session is done."""
        match event:
            case Final(text, late=True):
                reply = " ".join((*self._gathered, text))  # in the order in which they were said
                self._gathered.clear()
                return (reply,)
            case Final(text):
                self._gathered.append(text)
            case MessageDone() | SessionOver() if self._gathered:
                reply = " ".join(self._gathered)
                self._gathered.clear()
                return (reply,)
        return ()
