"""The documented Python interface over sttd's providers, for programs that use sttd as a library."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from sttd.audio.format import RATE
from sttd.audio.pipeline import Pipeline, Speech, UtteranceEnd, UtteranceStart
from sttd.errors import CloudError, RecognitionError
from sttd.events import Event, Failed, Final
from sttd.models.store import resolve
from sttd.recognizers.base import Cloud, Engine, STTInterface, TextHandler
from sttd.recognizers.batch import CONTEXT_CHARACTERS
from sttd.recognizers.worker import Provider, run_blocking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sttd.config import Config, SessionOptions


class LocalService(STTInterface):
    """One engine behind STTInterface. Works under Trio and under asyncio.

    Each `transcribe` takes one recording and returns its text, so `text_handler` is never called.
    """

    def __init__(self, engine_class: type[Engine], config: Config) -> None:
        self._engine_class = engine_class
        self._config = config
        self._engine: Engine | None = None

    async def initialize(self, text_handler: TextHandler | None = None) -> None:  # noqa: ARG002
        """Load the model from the store, once. ModelMissing or ModelError where that fails."""
        if self._engine is None:
            model = resolve(self._config)
            engine = self._engine_class(self._config, model.path, model.languages)
            await run_blocking(engine.load)
            self._engine = engine

    async def transcribe(self, data: bytes | bytearray) -> str:
        """Transcribe one recording."""
        if self._engine is None:
            raise RecognitionError("transcribe was called before initialize")
        return await run_blocking(_transcribe, self._engine, bytes(data[: len(data) - len(data) % 2]))

    async def close(self) -> None:
        """Let go of the model; `initialize` loads it again."""
        self._engine = None

    def is_open(self) -> bool:
        """Whether the model is loaded."""
        return self._engine is not None


class CloudService(STTInterface):
    """A cloud provider behind STTInterface. Works under Trio and under asyncio, in a thread of its own."""

    def __init__(self, cloud_class: type[Cloud], config: Config) -> None:
        self._cloud_class = cloud_class
        self._config = config
        self._open = False

    async def initialize(self, text_handler: TextHandler | None = None) -> None:  # noqa: ARG002
        """ConfigError where there is no API key."""
        self._cloud_class(self._config)
        self._open = True

    async def transcribe(self, data: bytes | bytearray) -> str:
        """Transcribe one recording. CloudError where that fails."""
        if not self._open:
            raise RecognitionError("transcribe was called before initialize")
        return await run_blocking(trio.run, self._transcribe, bytes(data[: len(data) - len(data) % 2]))

    async def _transcribe(self, pcm: bytes) -> str:
        provider = Provider(self._config)
        texts: list[str] = []
        faults: list[str] = []

        def take(event: Event) -> None:
            if isinstance(event, Final):
                texts.append(event.text)
            elif isinstance(event, Failed):
                faults.append(event.message)

        options = self._config.session_options()
        async with provider.recognizer(replace(options, partials=False), take) as recognizer:
            for at, utterance in _utterances(pcm, options):
                await recognizer.start(at)
                await recognizer.accept([utterance])
                await recognizer.finish()
        await provider.aclose()
        if faults:
            raise CloudError(faults[0])
        return " ".join(texts)

    async def close(self) -> None:
        """Nothing is kept open."""
        self._open = False

    def is_open(self) -> bool:
        """Whether `initialize` found a key."""
        return self._open


def _utterances(pcm: bytes, options: SessionOptions) -> Iterator[tuple[float, bytes]]:
    """When each utterance begins, in seconds, and its audio."""
    pipeline = Pipeline(options)
    at, utterance = 0.0, b""
    for segment in (*pipeline.feed(pcm), *pipeline.flush()):
        if isinstance(segment, UtteranceStart):
            at, utterance = segment.at / RATE, b""
        elif isinstance(segment, Speech):
            utterance += segment.pcm
        elif isinstance(segment, UtteranceEnd):
            yield at, utterance


def _transcribe(engine: Engine, pcm: bytes) -> str:
    options = engine.config.session_options()
    if engine.streaming:
        return engine.transcribe(pcm, options).text
    said = ""
    for _at, utterance in _utterances(pcm, options):
        text = engine.transcribe(utterance, options, context=said[-CONTEXT_CHARACTERS:]).text
        said = f"{said} {text}".strip()
    return said
