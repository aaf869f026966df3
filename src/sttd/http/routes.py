"""Plain requests and their answers."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from sttd.http.front_door import Request, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

Route = Callable[[], Response]


class Routes:
    """Answers GET and HEAD for known paths, and says what there is for others."""

    def __init__(self, routes: Mapping[str, Route], websockets: tuple[str, ...]) -> None:
        self._routes = routes
        self._help = f"WebSockets: {', '.join(websockets)}. Plain requests: {', '.join(routes)}.\n"

    def respond(self, request: Request) -> Response:
        """The answer to a request that is no upgrade."""
        route = self._routes.get(request.path)
        if route is None:
            return Response(HTTPStatus.NOT_FOUND, f"Not found: {request.path}\n{self._help}")
        if request.method not in ("GET", "HEAD"):
            return Response(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and HEAD.\n", {"Allow": "GET, HEAD"})
        return route()
