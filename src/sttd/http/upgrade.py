"""Upgrades to a WebSocket (RFC 6455, 4.2.1): what is checked, and the clean head that the WebSocket library gets.

The library's own parsing of hostile heads can raise what nobody catches, so raw bytes of the peer never reach it.
"""

from __future__ import annotations

import base64
import binascii
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11

from sttd.http.messages import Refused

if TYPE_CHECKING:
    from sttd.http.messages import Request

MISSING = (
    "This is the address of a WebSocket, and the request has no header `Upgrade: websocket`. "
    "If there is a proxy in between, it must pass the headers Upgrade and Connection on."
)


def upgrade_required(message: str = MISSING) -> Refused:
    """Return the refusal of a request that should have been an upgrade."""
    headers = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    return Refused(HTTPStatus.UPGRADE_REQUIRED, "request", message, headers)


def check_upgrade(request: Request) -> None:
    """Raise Refused if the request is no valid upgrade."""
    if request.method != "GET":
        message = "A WebSocket opens with GET."
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "request", message, {"Allow": "GET"})
    if "upgrade" not in request.tokens("connection"):
        raise _bad("An upgrade needs the header Connection: Upgrade.")
    if request.headers.get("sec-websocket-version", "").strip() != "13":
        raise upgrade_required("Only WebSocket version 13 is spoken.")
    if "transfer-encoding" in request.headers or request.headers.get("content-length", "0").strip() != "0":
        raise _bad("An upgrade has no body.")
    try:
        valid = len(base64.b64decode(_key(request), validate=True)) == 16
    except (binascii.Error, ValueError):
        valid = False
    if not valid:
        raise _bad("Sec-WebSocket-Key is not 16 bytes in base64.")


def clean_head(request: Request, subprotocol: str) -> bytes:
    """Return a head for a request that is checked, with nothing of the peer's in it but the key."""
    headers = [
        ("Host", "sttd"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", _key(request)),
    ]
    if subprotocol:
        headers.append(("Sec-WebSocket-Protocol", subprotocol))
    head = h11.Connection(h11.CLIENT).send(h11.Request(method="GET", target=request.path, headers=headers))
    assert head is not None
    return head


def _key(request: Request) -> str:
    return request.headers.get("sec-websocket-key", "").strip()


def _bad(message: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, "request", message)
