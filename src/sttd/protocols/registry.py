"""The protocols that are served over WebSockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sttd.protocols.json_events import JsonEvents
from sttd.protocols.plain import PlainText
from sttd.protocols.vosk_server import VoskServer

if TYPE_CHECKING:
    from sttd.protocols.base import Protocol

PROTOCOLS: list[type[Protocol]] = [PlainText, JsonEvents, VoskServer]
