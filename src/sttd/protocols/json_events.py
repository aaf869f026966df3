"""The JSON protocol at `/ws/stt`: `ready`, `partial`, `final`, `error`. See docs/protocols.md."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, ClassVar

from sttd.events import Event, Failed, Final, Partial, Ready, Warned
from sttd.protocols.base import Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sttd.config.config import SessionOptions


class JsonEvents(Protocol):
    """Exactly the documented events and fields, unless the client asked for more, such as `words` and `warnings`."""

    name: ClassVar[str] = "json"
    title: ClassVar[str] = "JSON events"
    path: ClassVar[str] = "/ws/stt"

    def __init__(self) -> None:
        self._last_partial = ""

    def encode(self, event: Event, options: SessionOptions) -> Sequence[str]:
        """Return the JSON object for an event. A partial that repeats the last one is left out."""
        match event:
            case Ready():
                return _dump({"type": "ready"})
            case Partial(text) if options.partials and text != self._last_partial:
                self._last_partial = text
                return _dump({"type": "partial", "text": text})
            case Final(text, words):
                self._last_partial = ""
                message: dict[str, object] = {"type": "final", "text": text}
                if options.words:
                    message["words"] = [asdict(word) for word in words]
                if options.lag:
                    message["lag"] = event.lag
                if options.engine:
                    message["engine"] = event.engine
                    message["fallback_from"] = event.fallback_from or None
                return _dump(message)
            case Failed(message=reason):
                error: dict[str, object] = {"type": "error", "message": reason}
                if options.codes:
                    error |= {"code": event.code, "fatal": event.fatal}
                return _dump(error)
            case Warned(message=finding) if options.warnings:
                return _dump({"type": "warning", "message": finding})
        return ()


def _dump(message: dict[str, object]) -> Sequence[str]:
    return (json.dumps(message, ensure_ascii=False),)
