"""The web page at `/`, and the files that it is made of. They are read once, and served from memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from importlib.resources import files

from sttd.http.messages import Request, Response
from sttd.http.routes import Route

TYPES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "sttd.js": "text/javascript; charset=utf-8",
    "sttd.d.ts": "text/plain; charset=utf-8",
    "speech-recognition.js": "text/javascript; charset=utf-8",
    "worklet.js": "text/javascript; charset=utf-8",
}
"""The files, and the type of each."""
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
MODULES = ("sttd.js", "sttd.d.ts", "speech-recognition.js", "worklet.js")
"""What pages of other origins may import. It has no secrets; what their sessions may do, access.origins says."""


@dataclass(frozen=True, slots=True)
class _File:
    data: bytes
    content_type: str
    headers: dict[str, str]

    async def answer(self, request: Request) -> Response:
        """Return the file, or 304 if the client has the current version."""
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if self.headers["ETag"] in known or "*" in known:
            return Response(HTTPStatus.NOT_MODIFIED, "", self.headers)
        return Response(HTTPStatus.OK, self.data, self.headers, self.content_type)


def routes() -> tuple[Route, ...]:
    """Return a route for each file; that of the page itself is `/`. Anybody may read them."""
    folder = files("sttd.http").joinpath("page")
    found = []
    for name, content_type in TYPES.items():
        data = folder.joinpath(name).read_bytes()
        headers = HEADERS | {"ETag": f'"{hashlib.sha256(data).hexdigest()[:16]}"'}
        if name in MODULES:
            headers["Access-Control-Allow-Origin"] = "*"
        path = "/" if name == "index.html" else f"/{name}"
        found.append(Route("GET", path, partial(_File.answer, _File(data, content_type, headers))))
    return tuple(found)
