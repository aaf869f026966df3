"""What a session talks over: whole messages in, messages out, whatever the bytes of the connection look like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from sttd.events import Ending


class Disconnected(Exception):
    """The peer is gone, or was cut off."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message of the client, or part of a long binary one."""

    message: str | bytes
    complete: bool = True
    """Whether this is the whole message, or its last part."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a connection ended: `code` in the terms of its wire, as metrics count it, and the reason that was given."""

    code: str
    reason: str = ""


class Channel(ABC):
    """An open connection. One task receives, one sends; `stop` may be called by any."""

    peer: str
    """The client, for the log."""

    @property
    @abstractmethod
    def receiving_message(self) -> bool:
        """Whether part of a message has come, and the rest has not."""

    @abstractmethod
    async def receive(self) -> Received | None:
        """Wait for the next message; None once the client has said that it ends, or after `stop`.

        Raises Disconnected if the client has vanished.
        """

    @abstractmethod
    def stop(self) -> None:
        """Let `receive` return None from now on. No message that was taken from the peer is lost."""

    @abstractmethod
    async def pause(self, until: float) -> None:
        """Receive nothing until that time of Trio's clock, until `stop`, or until the peer ends the connection."""

    @abstractmethod
    async def send(self, message: str | bytes) -> None:
        """Send a message. Raises Disconnected if the peer is gone, or does not take it in time."""

    @abstractmethod
    async def close(self, ending: Ending, reason: str) -> None:
        """Say that the session ends, and why, and close. Returns in time whatever the peer does."""

    @property
    @abstractmethod
    def outcome(self) -> Outcome:
        """How the connection, which is over, has ended."""


class StoppableChannel(Channel):
    """A channel whose `receive` waits in the scope `_receiving`, and looks at `_stopped` first."""

    def __init__(self) -> None:
        self._stopped = trio.Event()
        self._receiving = trio.CancelScope()

    def stop(self) -> None:
        """See Channel."""
        self._stopped.set()
        self._receiving.cancel()

    async def pause(self, until: float) -> None:
        """See Channel. The end of the connection is noticed when receiving goes on."""
        with trio.move_on_at(until):
            await self._stopped.wait()
