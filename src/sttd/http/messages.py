"""Requests and responses of plain HTTP, as handlers see them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. A `body` that is a stream is sent as it comes, and closed if the peer leaves."""

    status: HTTPStatus
    body: str | bytes | AsyncGenerator[bytes] = ""
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

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body in pieces. Raises Refused if it is too long or breaks the protocol."""
        if self._length is not None and self._length > self.max_bytes:
            raise self._too_long()
        size = 0
        while data := await self._receive():
            size += len(data)
            if size > self.max_bytes:
                raise self._too_long()
            yield data
        self.complete = True

    async def read(self) -> bytes:
        """Return the whole body. Raises Refused as iteration does."""
        return b"".join([data async for data in self])

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

    @property
    def is_upgrade(self) -> bool:
        """Whether the client asks for a WebSocket."""
        return "websocket" in self.tokens("upgrade")
