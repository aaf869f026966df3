"""From blocking engines to sessions: worker threads, and the recognizer that each session holds."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import trio

from sttd.audio.format import RATE, SAMPLE_BYTES, seconds
from sttd.errors import ModelError, ModelMissing
from sttd.events import Final, Partial
from sttd.models.store import resolve
from sttd.recognizers.base import Engine, Recognizer, STTInterface, Transcript
from sttd.recognizers.registry import provider_class

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from sttd.config import Config, SessionOptions
    from sttd.recognizers.base import Decoder, Emit

logger = logging.getLogger(__name__)
CONTEXT_S = 3.0
"""Silence after which what was said before no longer helps to understand what is said next."""

CONTEXT_CHARACTERS = 200
"""As much of it as is kept."""

P = ParamSpec("P")
R = TypeVar("R")


async def run_blocking(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `function` in a thread, under Trio or under asyncio."""
    call = partial(function, *args, **kwargs)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return await trio.to_thread.run_sync(call)
    return await asyncio.to_thread(call)


class Provider:
    """The configured provider as the daemon runs it: one model for all sessions, and the threads that decode."""

    def __init__(self, config: Config) -> None:
        """Unavailable where the provider cannot run here."""
        self.config = config
        self.name = config.provider
        self.recognizers = 0
        self.model = ""
        self._class = provider_class(config.provider)
        self._engine: Engine | None = None
        self._problem: ModelMissing | ModelError | None = None
        self._loading = trio.Lock()
        self._limiter = trio.CapacityLimiter(1)
        self._partials = trio.Semaphore(0)

    @property
    def finds_endpoints(self) -> bool:
        """Whether the provider ends utterances by itself where the gate is off."""
        return issubclass(self._class, Engine) and self._class.streaming

    @property
    def status(self) -> str:
        """Why the provider is not ready, in words; empty when it is."""
        if self._engine is not None or not issubclass(self._class, Engine):
            return ""
        return str(self._problem) if self._problem else "the model is loading"

    async def ready(self, *, abandon: bool = False) -> None:
        """Have the model in memory, loading it if need be: one that was missing may have been pulled since.

        ModelMissing or ModelError where that fails. With `abandon` a cancelled load is not waited for.
        """
        async with self._loading:
            if self._engine is not None or not issubclass(self._class, Engine):
                return
            try:
                await self._load(self._class, abandon=abandon)
            except (ModelMissing, ModelError) as error:
                self._problem = error
                raise
            except Exception as error:
                self._problem = ModelError(f"the model could not be loaded: {error!r}")
                raise self._problem from error
            self._problem = None

    async def _load(self, engine_class: type[Engine], *, abandon: bool) -> None:
        model = resolve(self.config)
        engine = engine_class(self.config, model.path, model.languages)
        started = trio.current_time()
        await trio.to_thread.run_sync(engine.load, abandon_on_cancel=abandon)
        self._limiter = trio.CapacityLimiter(engine.workers)
        self._partials = trio.Semaphore(engine.workers - 1)
        self._engine = engine
        self.model = model.name
        took = trio.current_time() - started
        logger.info("model loaded provider=%s model=%s seconds=%.1f", self.name, model.name, took)

    def check(self, options: SessionOptions) -> None:
        """OptionError where a session asks for what the model cannot do."""
        if self._engine is not None:
            self._engine.check(options)

    @asynccontextmanager
    async def recognizer(self, options: SessionOptions, emit: Emit) -> AsyncIterator[Recognizer]:
        """A recognizer for one session; `ready` must have returned."""
        self.recognizers += 1
        try:
            if self._engine is None:
                assert issubclass(self._class, STTInterface)
                async with _interface_recognizer(self._class(), emit) as recognizer:
                    yield recognizer
            elif self._engine.streaming:
                decoder = await trio.to_thread.run_sync(self._engine.decoder, options, limiter=self._limiter)
                yield StreamingRecognizer(decoder, options, emit, self._limiter)
            else:
                async with trio.open_nursery() as nursery:
                    interval = self.config.faster_whisper.partial_interval_ms / 1000
                    yield BatchRecognizer(self._engine, options, emit, self._limiter, self._partials, nursery, interval)
                    nursery.cancel_scope.cancel()
        finally:
            self.recognizers -= 1


class StreamingRecognizer(Recognizer):
    """A streaming engine's decoder. Its calls are never abandoned: the decoder must not be freed under one."""

    def __init__(self, decoder: Decoder, options: SessionOptions, emit: Emit, limiter: trio.CapacityLimiter) -> None:
        self._decoder = decoder
        self._options = options
        self._emit = emit
        self._limiter = limiter
        self._fed = 0
        self._offset = 0.0

    async def start(self, at: float) -> None:
        """See Recognizer."""
        self._offset = at - self._fed / (RATE * SAMPLE_BYTES)

    async def accept(self, pieces: Sequence[bytes]) -> None:
        """One thread call for all pieces; the decoder sees them as they came, so merging changes no text."""
        await trio.to_thread.run_sync(self._accept, pieces, limiter=self._limiter)

    def _accept(self, pieces: Sequence[bytes]) -> None:
        for number, piece in enumerate(pieces, 1):
            wanted = self._options.partials and number == len(pieces)
            found = self._decoder.accept(piece, partial=wanted)
            self._fed += len(piece)
            if found and found.transcript.text:
                event = self._final(found.transcript) if found.final else Partial(found.transcript.text)
                trio.from_thread.run_sync(self._emit, event)

    async def finish(self) -> None:
        """See Recognizer."""
        found = await trio.to_thread.run_sync(self._decoder.finish, limiter=self._limiter)
        if found.text:
            self._emit(self._final(found))

    def _final(self, transcript: Transcript) -> Final:
        return _final_at(self._offset, transcript)


class BatchRecognizer(Recognizer):
    """Gathers an utterance and decodes it at its end; decodes what there is for partials meanwhile.

    A partial starts only while another worker stays free (`partials` has one place less than there are workers), so
    that no final waits for it, and is forgotten when the
    utterance ends first. Calls share nothing but the model, so those of a session that is gone are abandoned.
    """

    def __init__(
        self,
        engine: Engine,
        options: SessionOptions,
        emit: Emit,
        limiter: trio.CapacityLimiter,
        partials: trio.Semaphore,
        nursery: trio.Nursery,
        interval: float,
    ) -> None:
        self._engine = engine
        self._options = options
        self._emit = emit
        self._limiter = limiter
        self._partials = partials
        self._nursery = nursery
        self._interval = interval
        self._audio = bytearray()
        self._at = 0.0
        self._said = ""
        self._silent_from = 0.0
        self._utterance = 0
        self._next_partial = interval
        self._partial_running = False

    async def start(self, at: float) -> None:
        """See Recognizer."""
        self._audio.clear()
        self._at = at
        if at - self._silent_from > CONTEXT_S:
            self._said = ""
        self._utterance += 1
        self._next_partial = self._interval

    async def accept(self, pieces: Sequence[bytes]) -> None:
        """See Recognizer."""
        for piece in pieces:
            self._audio += piece
        due = self._options.partials and seconds(self._audio) >= self._next_partial
        if due and not self._partial_running and self._limiter.available_tokens > 1 and self._partials.value:
            self._partials.acquire_nowait()
            self._partial_running = True
            self._nursery.start_soon(self._partial, bytes(self._audio), self._utterance)

    async def _partial(self, pcm: bytes, utterance: int) -> None:
        try:
            found = await self._decode(pcm, final=False)
        except Exception:
            # The final decodes the same audio again and reports what is wrong with it.
            logger.warning("a partial could not be decoded", exc_info=True)
            return
        finally:
            self._partial_running = False
            self._partials.release()
            if utterance == self._utterance:
                self._next_partial = seconds(pcm) + self._interval
        if utterance == self._utterance and found.text:
            self._emit(Partial(found.text))

    async def finish(self) -> None:
        """See Recognizer."""
        self._utterance += 1
        pcm = bytes(self._audio)
        self._audio.clear()
        found = await self._decode(pcm, final=True)
        self._silent_from = self._at + seconds(pcm)
        self._said = f"{self._said} {found.text}".strip()[-CONTEXT_CHARACTERS:]
        if found.text:
            self._emit(_final_at(self._at, found))

    async def _decode(self, pcm: bytes, *, final: bool) -> Transcript:
        call = partial(self._engine.transcribe, pcm, self._options, final=final, context=self._said)
        return await trio.to_thread.run_sync(call, limiter=self._limiter, abandon_on_cancel=True)


@asynccontextmanager
async def _interface_recognizer(service: STTInterface, emit: Emit) -> AsyncIterator[Recognizer]:
    async def handle(text: str) -> None:
        if text:
            emit(Final(text))

    await service.initialize(handle)
    try:
        yield InterfaceRecognizer(service, emit)
    finally:
        with trio.move_on_after(5, shield=True):
            await service.close()


class InterfaceRecognizer(Recognizer):
    """Another package's STTInterface, given one utterance a call."""

    def __init__(self, service: STTInterface, emit: Emit) -> None:
        self._service = service
        self._emit = emit
        self._audio = bytearray()

    async def start(self, at: float) -> None:  # noqa: ARG002
        """See Recognizer."""
        self._audio.clear()

    async def accept(self, pieces: Sequence[bytes]) -> None:
        """See Recognizer."""
        for piece in pieces:
            self._audio += piece

    async def finish(self) -> None:
        """See Recognizer."""
        text = await self._service.transcribe(bytes(self._audio))
        self._audio.clear()
        if text:
            self._emit(Final(text))


def _final_at(offset: float, transcript: Transcript) -> Final:
    words = tuple(
        replace(word, start=round(word.start + offset, 3), end=round(word.end + offset, 3)) for word in transcript.words
    )
    return Final(transcript.text, words)
