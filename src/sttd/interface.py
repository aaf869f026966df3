"""The documented Python interface over sttd's providers, for programs that use sttd as a library."""

from __future__ import annotations

import asyncio
import queue
import threading
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, ClassVar, ParamSpec, TypeVar

import trio

from sttd.audio.format import RATE
from sttd.audio.pipeline import Pipeline, Speech, SpeechPause, UtteranceEnd, UtteranceStart
from sttd.config.config import Config
from sttd.errors import CloudError, RecognitionError, SttdError, first
from sttd.events import Event, Failed, Final
from sttd.providers.plugin import STTInterface, TextHandler
from sttd.providers.registry import CLOUDS, ENGINES, open_provider, plugin_class

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sttd.providers.base import Provider
    from sttd.recognizers.base import Recognizer

__all__ = ["STTFactory", "STTInterface", "Service"]

P = ParamSpec("P")
R = TypeVar("R")


class STTFactory:
    """Services by provider, as documented for `/api/v1/ws`."""

    _instances: ClassVar[dict[str, STTInterface]] = {}

    @classmethod
    def get_instance(cls, provider: str) -> STTInterface:
        """Return the one instance of a provider, with default settings. Raises ValueError if there is no such one."""
        if provider not in cls._instances:
            own = provider in ENGINES or provider in CLOUDS
            cls._instances[provider] = Service(Config(provider=provider)) if own else plugin_class(provider)()
        return cls._instances[provider]


class Service(STTInterface):
    """One of sttd's providers behind STTInterface. Works under Trio and under asyncio.

    Each `transcribe` takes one recording and returns its text, so `text_handler` is never called.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._provider: Provider | None = None
        self._open = False

    async def initialize(self, text_handler: TextHandler | None = None) -> None:  # noqa: ARG002
        """Load the model from the store, once.

        Raises ModelMissing or ModelError if that fails, ConfigError if a cloud's API key is missing.
        """
        if self._provider is None:
            self._provider = open_provider(self._config)
        provider = self._provider
        await _in_loop(provider.ready)
        self._open = self._provider is provider  # else it was closed meanwhile

    async def transcribe(self, data: bytes | bytearray) -> str:
        """Transcribe one recording. Raises RecognitionError if that fails."""
        if self._provider is None or not self._open:
            raise RecognitionError("transcribe was called before initialize")
        return await _in_loop(_transcribe, self._provider, bytes(data[: len(data) - len(data) % 2]))

    async def close(self) -> None:
        """Let go of the model; `initialize` loads it again."""
        provider, self._provider, self._open = self._provider, None, False
        if provider is not None:
            await _in_loop(provider.aclose)

    def is_open(self) -> bool:
        """Whether `initialize` has returned."""
        return self._open


async def _transcribe(provider: Provider, pcm: bytes) -> str:
    texts: list[str] = []
    faults: list[str] = []

    def take(event: Event) -> None:
        if isinstance(event, Final):
            texts.append(event.text)
        elif isinstance(event, Failed):
            faults.append(event.message)

    options = replace(provider.config.session_options(), partials=False)
    try:
        async with provider.recognizer(options, take) as recognizer:
            pipeline = Pipeline(options)
            for start in range(0, len(pcm), RATE):
                await _hear(recognizer, pipeline.feed(pcm[start : start + RATE]))
            await _hear(recognizer, pipeline.flush())
    except ExceptionGroup as group:
        error = first(group)
        raise error if isinstance(error, SttdError) else RecognitionError(f"Recognition failed: {error}") from group
    if faults:
        raise CloudError(faults[0])
    return " ".join(texts)


async def _hear(recognizer: Recognizer, segments: Sequence[object]) -> None:
    for segment in segments:
        match segment:
            case UtteranceStart(at):
                await recognizer.start(at / RATE)
            case Speech(pcm, confidence):
                await recognizer.accept([pcm], confidence=confidence)
            case SpeechPause():
                pass  # there is no hurry
            case UtteranceEnd(_settled, confidence):
                await recognizer.finish(confidence=confidence)


async def _in_loop(function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
    """Await `function` in the loop of all services; the caller runs Trio or asyncio."""
    call = partial(trio.from_thread.run, partial(function, *args, **kwargs), trio_token=_loop())
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return await trio.to_thread.run_sync(call)
    return await asyncio.to_thread(call)


@cache
def _loop() -> trio.lowlevel.TrioToken:
    """Start a Trio loop in a thread of its own.

    A provider belongs to one loop, while a program may have several one after the other, or asyncio's.
    """
    started: queue.SimpleQueue[trio.lowlevel.TrioToken] = queue.SimpleQueue()

    async def serve() -> None:
        started.put(trio.lowlevel.current_trio_token())
        await trio.sleep_forever()

    threading.Thread(target=trio.run, args=(serve,), name="sttd", daemon=True).start()
    return started.get()
