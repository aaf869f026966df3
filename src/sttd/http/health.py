"""`/livez`: the event loop runs. `/readyz`: sessions get text, or why they do not."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from sttd.http.messages import Request, Response
from sttd.http.routes import Need, Route
from sttd.metrics import CLOUD, CONTENT_TYPE, exposition

if TYPE_CHECKING:
    from collections.abc import Callable

    from sttd.providers.base import Provider


class Health:
    """Answers about one daemon."""

    def __init__(self, provider: Provider, sessions: Callable[[], int], lag: Callable[[], float]) -> None:
        self._provider = provider
        self._sessions = sessions
        self._lag = lag

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        return (
            Route("GET", "/livez", self.livez),
            Route("GET", "/readyz", self.readyz),
            Route("GET", "/metrics", self.metrics, Need.TOKEN),
        )

    async def livez(self, request: Request) -> Response:  # noqa: ARG002
        """Answer: the event loop runs."""
        return Response(HTTPStatus.OK, "ok\n")

    async def metrics(self, request: Request) -> Response:  # noqa: ARG002
        """Return all metrics in the format of Prometheus."""
        for what, left in self._provider.account().items():
            CLOUD.labels(self._provider.name, what).set(left)
        return Response(HTTPStatus.OK, exposition(), content_type=CONTENT_TYPE)

    async def readyz(self, request: Request) -> Response:  # noqa: ARG002
        """Return 200 if a new session would get text, else 503 with the reason."""
        problem = self._provider.status
        return Response.json(
            HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK,
            {
                "ready": not problem,
                "reason": problem,
                "provider": self._provider.name,
                "model": self._provider.model,
                "sessions": self._sessions(),
                "recognizers": self._provider.recognizers,
                "lag_s": round(self._lag(), 2),
                **({"cloud": self._provider.account()} if self._provider.destination else {}),
            },
        )
