"""A recording as a Channel: its audio comes from a decoder, and what is found goes to whoever waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from sttd.audio.format import seconds
from sttd.wires.base import Disconnected, Outcome, Received, StoppableChannel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sttd.events import Ending


class TooLong(Exception):
    """The recording has more audio than is allowed."""


class UploadChannel(StoppableChannel):
    """`receive` reads the recording, and `send` hands each message over, once somebody takes it."""

    receiving_message = False

    def __init__(
        self,
        next_piece: Callable[[], Awaitable[bytes]],
        messages: trio.MemorySendChannel[str],
        peer: str,
        max_s: float,
    ) -> None:
        """`next_piece` returns the next samples (PCM, 16-bit, 16 kHz, mono), and none at the end."""
        super().__init__()
        self.peer = peer
        self.heard_s = 0.0
        """Seconds of audio that were read."""
        self.failure: Exception | None = None
        """Why the recording could not be read to its end."""
        self.ending: Ending | None = None
        """How the session has ended."""
        self._next_piece = next_piece
        self._messages = messages
        self._max_s = max_s

    async def receive(self) -> Received | None:
        """See Channel. The end is that of the recording. A failure to read it ends the session at once."""
        piece = b""
        with trio.CancelScope() as self._receiving:
            if self._stopped.is_set():
                return None
            try:
                piece = await self._next_piece()
            except Exception as error:  # for whoever has sent it
                self.failure = error
        if not piece and self.failure is None:
            return None
        self.heard_s += seconds(piece)
        if self.heard_s > self._max_s:
            self.failure = TooLong(f"the recording is longer than {self._max_s:g} s (limits.upload_s)")
        if self.failure is not None:
            raise Disconnected  # what is found in the rest would be thrown away
        return Received(piece)

    async def send(self, message: str | bytes) -> None:
        """See Channel."""
        assert isinstance(message, str)
        try:
            await self._messages.send(message)
        except trio.BrokenResourceError:
            raise Disconnected from None

    async def close(self, ending: Ending, reason: str) -> None:  # noqa: ARG002
        """See Channel."""
        await trio.lowlevel.checkpoint()
        self.ending = ending

    @property
    def outcome(self) -> Outcome:
        """See Channel."""
        return Outcome(self.ending or "disconnected")
