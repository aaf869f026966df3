"""Providers that decode on this machine: one model for all sessions, and the threads that decode."""

from __future__ import annotations

import logging
from abc import abstractmethod
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from sttd.engines.base import BatchEngine, Engine, StreamingEngine
from sttd.engines.trial import load
from sttd.errors import ModelError, ModelMissing
from sttd.metrics import MODEL_LOAD, MODEL_MEMORY, resident_bytes
from sttd.models.store import fingerprint, resolve
from sttd.providers.base import Provider
from sttd.recognizers.batch import BatchRecognizer
from sttd.recognizers.scheduler import Scheduler
from sttd.recognizers.streaming import StreamingRecognizer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sttd.config.config import Config, SessionOptions
    from sttd.recognizers.base import Emit, Recognizer

logger = logging.getLogger(__name__)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0
"""Before a load that failed is tried again, and after many that did."""
SPARE_PAUSE_S = 60.0
"""After a decoder could not be made ready in advance."""

E = TypeVar("E", bound=Engine)


class LocalProvider(Provider, Generic[E]):
    """Loads the model of an engine, once, and tries again at longer and longer intervals if that fails."""

    def __init__(self, config: Config, engine_class: type[E]) -> None:
        super().__init__(config)
        self._engine_class = engine_class
        self._engine: E | None = None
        self._problem: ModelMissing | ModelError | None = None  # of the last load
        self._loading = trio.Lock()
        self._pause = self._again_at = 0.0  # after a load that failed
        self._failed_files = ""

    @property
    def status(self) -> str:
        """See Provider."""
        if self._engine is not None:
            return ""
        return str(self._problem) if self._problem else "the model is loading"

    @property
    def languages(self) -> Sequence[str]:
        """See Provider. They are known before the model is loaded."""
        if self._engine is not None:
            return self._engine.languages or super().languages
        with suppress(ModelMissing, ModelError):
            return resolve(self.config).languages or self._engine_class.usual_languages or super().languages
        return ()

    @property
    def slowness(self) -> float:
        """See Provider."""
        return 1.0 if self._engine is None else self._engine.calls.slowness

    def overdue_s(self) -> float:
        """See Provider."""
        return super().overdue_s() if self._engine is None else self._engine.calls.overdue_s()

    def check(self, options: SessionOptions) -> Sequence[str]:
        """See Provider."""
        return () if self._engine is None else self._engine.check(options)

    async def ready(self, *, abandon: bool = False) -> None:
        """See Provider: a model that was missing may have been pulled since, a damaged one may have been mended.

        Raises ModelError at once if the load of the same files has failed lately.
        """
        async with self._loading:
            if self._engine is not None:
                return
            if isinstance(self._problem, ModelError) and trio.current_time() < self._again_at:
                if self._files() == self._failed_files:
                    raise ModelError(str(self._problem))
                self._pause = 0.0  # somebody has mended it
            try:
                self._engine = await self._load(abandon=abandon)
            except ModelMissing as error:
                self._problem = error
                raise
            except Exception as error:
                raise self._failed(error) from None
            self._problem = None

    def _files(self) -> str:
        """Return the fingerprint of the model's files; empty while they are being replaced."""
        with suppress(OSError, ModelMissing, ModelError):
            return fingerprint(resolve(self.config).path)
        return ""

    def _failed(self, error: Exception) -> ModelError:
        """Note why a load has failed, and when it is to be tried again."""
        problem = error if isinstance(error, ModelError) else ModelError(f"the model could not be loaded: {error!r}")
        self._problem = problem
        self._pause = min(2 * self._pause or FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self._again_at = trio.current_time() + self._pause
        logger.error("%s; tried again in %.0f s", problem, self._pause, exc_info=None if problem is error else error)
        return problem

    async def _load(self, *, abandon: bool) -> E:
        model = resolve(self.config)
        self._failed_files = fingerprint(model.path)
        engine = self._engine_class(self.config, model.path, model.languages)
        started, memory = trio.current_time(), resident_bytes()
        await trio.to_thread.run_sync(load, engine, abandon_on_cancel=abandon)
        self._adopt(engine)
        self.model = model.name
        took = trio.current_time() - started
        MODEL_LOAD.labels(self.name, model.name).set(took)
        MODEL_MEMORY.labels(self.name, model.name).set(resident_bytes() - memory)
        logger.info("model loaded provider=%s model=%s seconds=%.1f", self.name, model.name, took)
        return engine

    @abstractmethod
    def _adopt(self, engine: E) -> None:
        """Get ready to lend recognizers over a loaded engine."""


class StreamingProvider(LocalProvider[StreamingEngine]):
    """Lends recognizers that decode audio as it comes."""

    finds_endpoints = True

    def __init__(self, config: Config, engine_class: type[StreamingEngine]) -> None:
        super().__init__(config, engine_class)
        self._limiter = trio.CapacityLimiter(1)
        self._behind = trio.CapacityLimiter(1)  # open utterances of sessions that are not live
        self._decoders = trio.Semaphore(0)
        self._spare_wanted = trio.Event()

    def _adopt(self, engine: StreamingEngine) -> None:
        self._limiter = trio.CapacityLimiter(engine.workers)
        self._behind = trio.CapacityLimiter(max(1, engine.workers - 1))
        self._decoders = trio.Semaphore(engine.decoders)

    @asynccontextmanager
    async def _open(self, options: SessionOptions, emit: Emit, *, live: bool) -> AsyncIterator[Recognizer]:
        assert self._engine is not None
        recognizer = StreamingRecognizer(
            self._engine,
            options,
            emit,
            self._limiter,
            self._decoders,
            self._look_for_spare,
            behind=None if live else self._behind,
        )
        try:
            yield recognizer
        finally:
            recognizer.close()

    def _look_for_spare(self) -> None:
        if self._engine is not None and self._engine.spare_wanted:
            self._spare_wanted.set()

    async def run(self) -> None:
        """Have the engine make decoders ready before they are wanted."""
        while True:
            await self._spare_wanted.wait()
            self._spare_wanted = trio.Event()
            if self._engine is None or not self._engine.spare_wanted:
                continue
            try:
                await trio.to_thread.run_sync(self._engine.prepare_spare, abandon_on_cancel=True)
            except Exception:
                logger.exception("no recognizer could be made ready in advance")
                await trio.sleep(SPARE_PAUSE_S)


class BatchProvider(LocalProvider[BatchEngine]):
    """Lends recognizers that decode whole utterances."""

    def __init__(self, config: Config, engine_class: type[BatchEngine]) -> None:
        super().__init__(config, engine_class)
        self._scheduler = Scheduler(1)

    def _adopt(self, engine: BatchEngine) -> None:
        self._scheduler = Scheduler(engine.workers)

    @asynccontextmanager
    async def _open(self, options: SessionOptions, emit: Emit, *, live: bool) -> AsyncIterator[Recognizer]:
        assert self._engine is not None
        async with trio.open_nursery() as nursery:
            yield BatchRecognizer(self._engine, options, emit, self._scheduler, nursery, live=live)
            nursery.cancel_scope.cancel()
