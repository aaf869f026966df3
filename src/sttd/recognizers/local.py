"""The documented Python interface over a local engine, for programs that use sttd as a library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sttd.audio.pipeline import Pipeline, Speech, UtteranceEnd
from sttd.errors import RecognitionError
from sttd.models.store import resolve
from sttd.recognizers.base import Engine, STTInterface, TextHandler
from sttd.recognizers.batch import CONTEXT_CHARACTERS
from sttd.recognizers.worker import run_blocking

if TYPE_CHECKING:
    from sttd.config import Config


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


def _transcribe(engine: Engine, pcm: bytes) -> str:
    options = engine.config.session_options()
    if engine.streaming:
        return engine.transcribe(pcm, options).text
    pipeline = Pipeline(options)
    said = ""
    utterance = b""
    for segment in (*pipeline.feed(pcm), *pipeline.flush()):
        if isinstance(segment, Speech):
            utterance += segment.pcm
        elif isinstance(segment, UtteranceEnd):
            text = engine.transcribe(utterance, options, context=said[-CONTEXT_CHARACTERS:]).text
            said = f"{said} {text}".strip()
            utterance = b""
    return said
