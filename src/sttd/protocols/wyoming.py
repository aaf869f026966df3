"""The Wyoming protocol (OHF-Voice/wyoming), as Home Assistant speaks it: one utterance, one transcript.

A client that is told nothing waits for ever, and some look at nothing but `transcript`. Therefore every utterance is
answered by one, after an `error` if there was one.
"""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from sttd.events import Audio, Command, Configure, Event, Failed, Final, SessionOver
from sttd.protocols.base import Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sttd.config.config import SessionOptions

ENCODINGS = {1: "pcm_u8", 2: "pcm_s16le", 3: "pcm_s24le", 4: "pcm_s32le"}
"""By the bytes of a sample."""


class Wyoming(Protocol):
    """One utterance. Its messages are those of sttd.wires.wyoming.WyomingChannel.

    Texts are sent as soon as they are found, in `transcript-chunk` events, and all together in the `transcript`.
    """

    name: ClassVar[str] = "wyoming"
    title: ClassVar[str] = "Wyoming"
    path: ClassVar[str] = ""  # it is not spoken over WebSockets
    defaults: ClassVar[Mapping[str, object]] = MappingProxyType({"partials": False})

    def __init__(self, *, early: bool = False) -> None:
        """`early`: the transcript is sent at the first end of speech, not at the end of the audio."""
        self._early = early
        self._texts: list[str] = []
        self._answered = False

    def receive(self, message: str | bytes) -> Command:
        """Return what a message of the client asks for."""
        if isinstance(message, bytes):
            return Audio(message)
        return Configure(format_options(json.loads(message)["data"]))

    def encode(self, event: Event, options: SessionOptions) -> Sequence[str]:  # noqa: ARG002
        """Return the events for the client, in JSON."""
        if self._answered:
            return ()
        match event:
            case Final(text):
                begin = () if self._texts else (_event("transcript-start"),)
                chunk = _event("transcript-chunk", text=f" {text}" if self._texts else text)
                self._texts.append(text)
                return (*begin, chunk, *(self._answer() if self._early else ()))
            case Failed(message, code):
                return (_event("error", text=message, code=str(code)),)
            case SessionOver():
                return self._answer()
        return ()

    @staticmethod
    def refusal(message: str, code: str) -> Sequence[str]:
        """Return the events for an utterance that is not served."""
        return (_event("error", text=message, code=code), _event("transcript", text=""))

    def _answer(self) -> Sequence[str]:
        self._answered = True
        end = (_event("transcript-stop"),) if self._texts else ()
        return (_event("transcript", text=" ".join(self._texts)), *end)


def format_options(data: Mapping[str, Any]) -> dict[str, object]:
    """Return the session options for an audio format, as far as it is given. What cannot be used is left as it is."""
    options: dict[str, object] = {}
    if "rate" in data:
        options["sample_rate"] = data["rate"]
    if "channels" in data:
        options["channels"] = data["channels"]
    if "width" in data:
        width = data["width"]
        known = isinstance(width, int) and not isinstance(width, bool)
        options["encoding"] = ENCODINGS.get(width, str(width)) if known else str(width)
    return options


def _event(name: str, **data: object) -> str:
    return json.dumps({"type": name, "data": data}, ensure_ascii=False)
