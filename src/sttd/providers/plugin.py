"""Providers of other packages: the interface that they implement, and how the daemon runs them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from sttd.audio.format import seconds
from sttd.engines.base import Calls
from sttd.errors import OptionError, RecognitionError
from sttd.events import Final
from sttd.providers.base import Provider
from sttd.recognizers.base import Recognizer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sttd.config.config import Config, SessionOptions
    from sttd.recognizers.base import Emit

TextHandler = Callable[[str], Awaitable[None]]
CLOSE_S = 5.0


class STTInterface(ABC):
    """Interface for speech-to-text services, as documented for `/api/v1/ws`.

    A class registered under the entry-point group `sttd.providers` is served on every endpoint: sttd makes one
    instance a session and hands it one utterance a call.
    """

    @abstractmethod
    async def initialize(self, text_handler: TextHandler | None = None) -> None:
        """Initialize the service. A service that finds text on its own time gives it to `text_handler`."""

    @abstractmethod
    async def transcribe(self, data: bytes | bytearray) -> str:
        """Transcribe audio (PCM, 16-bit little-endian, 16000 Hz, mono) to text; empty where there is no speech."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connection to the service."""

    @abstractmethod
    def is_open(self) -> bool:
        """Whether the service can transcribe."""


class PluginProvider(Provider):
    """Makes one instance of another package's STTInterface class for each session."""

    def __init__(self, config: Config, service_class: type[STTInterface]) -> None:
        super().__init__(config)
        self._service_class = service_class
        self._calls = Calls()

    def check(self, options: SessionOptions) -> Sequence[str]:
        """See Provider."""
        if options.translate:
            raise OptionError(f"translate: {self.name} does not translate")
        return ()

    def overdue_s(self) -> float:
        """See Provider."""
        return self._calls.overdue_s()

    @asynccontextmanager
    async def _open(self, options: SessionOptions, emit: Emit, *, live: bool) -> AsyncIterator[Recognizer]:  # noqa: ARG002
        service = self._service_class()
        recognizer = PluginRecognizer(service, self._calls, emit)
        await service.initialize(recognizer.say)  # not watched, as an engine's load is not
        try:
            yield recognizer
        finally:
            with trio.move_on_after(CLOSE_S, shield=True):
                await service.close()


class PluginRecognizer(Recognizer):
    """Hands a service one utterance a call."""

    def __init__(self, service: STTInterface, calls: Calls, emit: Emit) -> None:
        self._service = service
        self._calls = calls
        self._emit = emit
        self._audio = bytearray()
        self._speaking = False  # the client

    async def say(self, text: str) -> None:
        """Emit a text that the service has found on its own time."""
        if text:
            self._emit(Final(text, late=not self._speaking))

    async def start(self, at: float) -> None:  # noqa: ARG002
        """See Recognizer."""
        self._audio.clear()
        self._speaking = True

    async def accept(self, pieces: Sequence[bytes], *, confidence: float = 1.0) -> None:  # noqa: ARG002
        """See Recognizer."""
        for piece in pieces:
            self._audio += piece

    async def finish(self, *, settled: bool = False, confidence: float = 1.0) -> None:  # noqa: ARG002
        """See Recognizer. Raises RecognitionError if the service returns anything but a text."""
        with self._calls.watched(seconds(self._audio)):
            text = await self._service.transcribe(bytes(self._audio))
        self._audio.clear()
        self._speaking = False
        if not isinstance(text, str):
            raise RecognitionError(f"the provider returned no text, but {type(text).__name__}")
        if text:
            self._emit(Final(text))
