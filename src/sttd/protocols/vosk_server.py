"""The protocol of vosk-server's websocket (alphacep/vosk-server, websocket/asr_server.py): one reply a message.

Each binary message gets exactly one reply, in order: a result if an utterance has ended in it, else a partial. `eof`
and `reset` get one result.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, ClassVar

from sttd.events import (
    Audio,
    Command,
    Configure,
    EndOfStream,
    Event,
    Final,
    Flush,
    FlushDone,
    MessageDone,
    Partial,
    SessionOver,
    Unusable,
    Word,
)
from sttd.protocols.base import MAX_CONTROL_BYTES, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sttd.config.config import SessionOptions

UNKNOWN_WORD = "[unk]"
"""The entry of a `phrase_list` for all other words. sttd drops such words in any case."""


class VoskServer(Protocol):
    """Without a `config` message audio has 8000 Hz, as telephones do, and results have words."""

    name: ClassVar[str] = "vosk_server"
    title: ClassVar[str] = "vosk-server"
    path: ClassVar[str] = "/vosk"
    defaults: ClassVar[Mapping[str, object]] = {"sample_rate": 8000, "words": True}
    answers_messages: ClassVar[bool] = True
    tells_errors: ClassVar[bool] = False

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._words: list[Word] = []
        self._partial = ""
        self._ending = False  # as the client has asked

    def receive(self, message: str | bytes) -> Command:
        """Return what a message asks for. Control messages may come as binary."""
        if isinstance(message, str):
            return self._control(message)
        if len(message) <= MAX_CONTROL_BYTES and message.strip()[:1] == b"{":
            command = self._control(message.decode(errors="replace"))
            if not isinstance(command, Unusable):
                return command
        return Audio(message)

    def _control(self, text: str) -> Command:
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            return Unusable("a text message is not a JSON object")
        if "config" in message:
            return self._config(message["config"])
        if message.get("eof"):
            self._ending = True
            return EndOfStream()
        if message.get("reset"):
            return Flush()
        return Unusable('a text message has none of "config", "eof", "reset"')

    def _config(self, config: object) -> Command:
        """BigBlueButton sends numbers as strings and keys of its own; others send floats."""
        if not isinstance(config, dict):
            return Unusable('"config" is not a JSON object')
        options: dict[str, object] = {}
        try:
            if "sample_rate" in config:
                options["sample_rate"] = _number(config["sample_rate"])
            if "words" in config:
                options["words"] = bool(_number(config["words"]))
            if "max_alternatives" in config:
                options["alternatives"] = _number(config["max_alternatives"]) > 0
            if phrases := config.get("phrase_list"):
                options["phrases"] = [phrase for phrase in phrases if phrase != UNKNOWN_WORD]
        except (ValueError, TypeError, OverflowError) as error:
            return Unusable(f'"config" cannot be used: {error}')
        return Configure(options)

    def encode(self, event: Event, options: SessionOptions) -> Sequence[str]:
        """Return the reply when a message is done with."""
        match event:
            case Partial(text):
                self._partial = text
            case Final(text, words):
                self._texts.append(text)
                self._words += words if options.words else ()
                self._partial = ""
            case MessageDone():
                return (self._result(options) if self._texts else _dump({"partial": self._partial}),)
            case FlushDone():
                self._partial = ""
                return (self._result(options),)
            case SessionOver() if self._ending or self._texts:
                return (self._result(options),)
        return ()

    def _result(self, options: SessionOptions) -> str:
        """Return the result of all utterances since the last result."""
        text, words = " ".join(self._texts), self._words
        self._texts, self._words = [], []
        if options.alternatives:
            if not text:
                return _dump({"alternatives": [{"text": "", "confidence": 1.0}]})
            timed = [{"start": word.start, "end": word.end, "word": word.word} for word in words]
            confidence = sum(word.confidence for word in words) or 1.0
            return _dump({"alternatives": [{"confidence": confidence, **_with(timed), "text": text}]})
        found = [{"conf": word.confidence, "end": word.end, "start": word.start, "word": word.word} for word in words]
        return _dump({**_with(found), "text": text})


def _with(words: list[dict[str, Any]]) -> dict[str, Any]:
    return {"result": words} if words else {}


def _number(value: Any) -> int:
    """A whole number that may be written as a float or as a string. Raises ValueError or TypeError."""
    number = float(value)
    if not math.isfinite(number) or number != int(number):
        raise ValueError(f"{value!r} is not a whole number")
    return int(number)


def _dump(message: dict[str, Any]) -> str:
    return json.dumps(message, ensure_ascii=False)
