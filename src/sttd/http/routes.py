"""Which requests are answered, by whom, and for whom."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING

from sttd.http.messages import Refused, Request, Response

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

Handler = Callable[[Request], Awaitable[Response]]


class Need(Enum):
    """What a client must have."""

    NOTHING = "nothing"
    TOKEN = "a token, unless it is on this machine"  # noqa: S105
    PAGE = "nothing; but a web page must be one that is allowed"
    SESSION = "what a session needs; it counts as one"


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. GET answers HEAD too.

    A path that ends with a slash stands for all below it; but `/` stands for itself alone.
    """

    method: str
    path: str
    handler: Handler
    need: Need = Need.NOTHING
    max_body: int = 0
    """Bytes."""
    deadline_s: float = 10.0
    """From the end of the head to the answer: the body has to come in that time, and the handler has to return."""
    told: Callable[[Refused, Request], Response] | None = None
    """The form of a refusal; None: plain text."""


class Routes:
    """The table of routes. It knows the paths of WebSockets, for its help text."""

    def __init__(self, routes: Sequence[Route], websockets: Collection[str]) -> None:
        self._routes = {(route.method, route.path): route for route in routes}
        plain = dict.fromkeys(route.path for route in routes)
        self._help = f"WebSockets: {', '.join(websockets)}. Plain requests: {', '.join(plain)}.\n"

    def find(self, request: Request) -> Route:
        """Return the route for a request. Raises Refused if there is none."""
        method = "GET" if request.method == "HEAD" else request.method
        folder = request.path.rpartition("/")[0]
        below = f"{folder}/" if folder else request.path
        route = self._routes.get((method, request.path)) or self._routes.get((method, below))
        if route is not None:
            return route
        allowed = [method for method, path in self._routes if path in (request.path, below)]
        if not allowed:
            message = f"Not found: {request.path}\n{self._help}".rstrip()
            raise Refused(HTTPStatus.NOT_FOUND, "", message)
        if "GET" in allowed:
            allowed.append("HEAD")
        message = f"Only {' and '.join(allowed)}."
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "", message, {"Allow": ", ".join(allowed)})
