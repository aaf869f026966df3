"""Requests and responses of plain HTTP, as handlers see them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Self, TypeVar

import trio

from sttd.errors import first

if TYPE_CHECKING:
    from collections.abc import Mapping


Send = Callable[[bytes], Awaitable[None]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. A `body` that is a function is called, once the head is sent, with what sends the next bytes."""

    status: HTTPStatus
    body: str | bytes | Callable[[Send], Awaitable[None]] = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "text/plain; charset=utf-8"

    @classmethod
    def json(cls, status: HTTPStatus, value: object) -> Response:
        """Return an answer in JSON."""
        return cls(status, json.dumps(value) + "\n", content_type="application/json")


class Refused(Exception):
    """A request that is not served; it carries the answer."""

    def __init__(self, status: HTTPStatus, reason: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        """`reason`: a word for the metrics."""
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.param: str | None = None
        """The field of a form that cannot be used."""
        self.response = Response(status, message + "\n", headers or {})

    @classmethod
    def busy(cls, reason: str, message: str) -> Self:
        """Return a refusal for lack of room, after which the client may try again."""
        return cls(HTTPStatus.SERVICE_UNAVAILABLE, reason, message, {"Retry-After": "5"})


class Body:
    """The body of a request, which is read from the connection as the handler asks for it."""

    def __init__(self, receive: Callable[[], Awaitable[bytes]], length: int | None) -> None:
        """`receive` returns the next bytes, and none at the end; `length` is what the head announces, if it does."""
        self.max_bytes = 0
        """What the route allows."""
        self.complete = length == 0
        """Whether all of it was read."""
        self._receive = receive
        self._length = length
        self._size = 0

    async def next_piece(self) -> bytes:
        """Return the next bytes; none at the end. Raises Refused if the body is too long or breaks the protocol."""
        if self._length is not None and self._length > self.max_bytes:
            raise self._too_long()
        data = await self._receive()
        self._size += len(data)
        if self._size > self.max_bytes:
            raise self._too_long()
        self.complete = not data
        return data

    async def read(self) -> bytes:
        """Return the whole body. Raises Refused as `next_piece` does."""
        whole = bytearray()
        while data := await self.next_piece():
            whole += data
        return bytes(whole)

    def _too_long(self) -> Refused:
        message = f"The body is too long; at most {self.max_bytes} bytes are taken here."
        return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_bytes", message)


@dataclass(frozen=True, slots=True)
class Request:
    """A request. `target` is path and query; header names are lower case, repeated headers are joined by commas."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: Body
    peer: str = ""
    """The client, for the log."""
    local: bool = False
    """Whether the client is on this machine."""
    resources: ExitStack = field(default_factory=ExitStack)
    """What is closed after the answer."""
    left: Callable[[], Awaitable[None]] = trio.sleep_forever
    """Returns once the client has closed the connection. It must not be awaited while the body is read."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """The part after the question mark."""
        return self.target.partition("?")[2]

    def tokens(self, header: str) -> set[str]:
        """Return the elements of a header that is a list, in lower case."""
        return {token.strip().lower() for token in self.headers.get(header, "").split(",")}

    async def unless_left(self, work: Callable[[], Awaitable[T]]) -> None:
        """Do work that ends early if the client leaves. Raises what it raises, and trio.BrokenResourceError then."""
        done = False
        try:
            async with trio.open_nursery() as nursery:

                async def watch() -> None:
                    await self.left()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(watch)
                await work()
                done = True
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise first(group) from None
        if not done:
            raise trio.BrokenResourceError("the client left")

    @property
    def is_upgrade(self) -> bool:
        """Whether the client asks for a WebSocket."""
        return "websocket" in self.tokens("upgrade")
