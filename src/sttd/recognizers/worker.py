"""From blocking engines to sessions: worker threads, and the recognizer that each session holds."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import trio

from sttd.errors import ConfigError, ModelError, ModelMissing, OptionError, RecognitionError
from sttd.events import Final
from sttd.metrics import MODEL_LOAD, MODEL_MEMORY, resident_bytes
from sttd.models.store import fingerprint, resolve
from sttd.recognizers.base import Cloud, Engine, Recognizer, STTInterface
from sttd.recognizers.batch import BatchRecognizer
from sttd.recognizers.fallback import Breaker, FallbackRecognizer
from sttd.recognizers.registry import local_config, provider_class
from sttd.recognizers.scheduler import Scheduler
from sttd.recognizers.streaming import StreamingRecognizer
from sttd.recognizers.trial import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from sttd.config import Config, SessionOptions
    from sttd.recognizers.base import Emit

logger = logging.getLogger(__name__)
AGAIN_S = 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0
"""Before a load that failed is tried again, and after many that did."""

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
        """Unavailable where the provider cannot run here, ConfigError where it must not or has no key."""
        self.config = config
        self.name = config.provider
        self.recognizers = 0
        self.model = ""
        self._class = provider_class(config.provider)
        self.cloud: Cloud | None = None
        self._fallback: Provider | None = None
        if issubclass(self._class, Cloud):
            if config.local_only:
                raise ConfigError(f"local_only: the provider {self.name} would send audio to other machines")
            self.cloud = self._class(config)
            self.model = self.cloud.model
            if self.cloud.problem:
                logger.error("%s%s", self.cloud.problem, "; the fallback serves" if config.fallback else "")
            self._breaker = Breaker(config.fallback_pause_s)
            if (local := local_config(config)) is not None:
                self._fallback = Provider(local)
        self._engine: Engine | None = None
        self.problem: ModelMissing | ModelError | None = None
        """Why the last load has failed."""
        self._loading = trio.Lock()
        self._pause = self._again_at = 0.0  # after a load that failed
        self._failed_files = ""
        self._limiter = trio.CapacityLimiter(1)
        self._decoders = trio.Semaphore(0)
        self._scheduler = Scheduler(1)
        self._spare_wanted = trio.Event()

    @property
    def finds_endpoints(self) -> bool:
        """Whether the provider ends utterances by itself where the gate is off."""
        streaming = issubclass(self._class, Engine | Cloud) and self._class.streaming
        return streaming and (self._fallback is None or self._fallback.finds_endpoints)

    @property
    def status(self) -> str:
        """Why the provider is not ready, in words; empty when it is."""
        if self.cloud is not None and self._fallback is None:
            return self.cloud.problem
        if self._engine is not None or not issubclass(self._class, Engine):
            return ""
        return str(self.problem) if self.problem else "the model is loading"

    async def ready(self, *, abandon: bool = False) -> None:
        """Have the model in memory, loading it if need be: one that was missing may have been pulled since.

        ModelMissing or ModelError where that fails; ModelError at once where it has failed lately. With `abandon` a
        cancelled load is not waited for.
        """
        if self._fallback is not None:
            # The cloud can serve without; that there is nothing to fall back on is said when it is wanted.
            with suppress(ModelMissing, ModelError):
                await self._fallback.ready(abandon=abandon)
        async with self._loading:
            if self._engine is not None or not issubclass(self._class, Engine):
                return
            if isinstance(self.problem, ModelError) and trio.current_time() < self._again_at:
                if fingerprint(resolve(self.config).path) == self._failed_files:
                    raise ModelError(str(self.problem))
                self._pause = 0.0  # somebody has mended it
            try:
                await self._load(self._class, abandon=abandon)
            except ModelMissing as error:
                self.problem = error
                raise
            except Exception as error:
                raise self._failed(error) from None
            self.problem = None

    def _failed(self, error: Exception) -> ModelError:
        """Note why a load has failed, and when it is to be tried again."""
        problem = error if isinstance(error, ModelError) else ModelError(f"the model could not be loaded: {error!r}")
        self.problem = problem
        self._pause = min(2 * self._pause or FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self._again_at = trio.current_time() + self._pause
        logger.error("%s; tried again in %.0f s", problem, self._pause, exc_info=None if problem is error else error)
        return problem

    async def _load(self, engine_class: type[Engine], *, abandon: bool) -> None:
        model = resolve(self.config)
        self._failed_files = fingerprint(model.path)
        engine = engine_class(self.config, model.path, model.languages)
        started, memory = trio.current_time(), resident_bytes()
        await trio.to_thread.run_sync(load, engine, abandon_on_cancel=abandon)
        self._limiter = trio.CapacityLimiter(engine.workers)
        self._decoders = trio.Semaphore(engine.decoders)
        self._scheduler = Scheduler(engine.workers)
        self._engine = engine
        self.model = model.name
        took = trio.current_time() - started
        MODEL_LOAD.labels(self.name, model.name).set(took)
        MODEL_MEMORY.labels(self.name, model.name).set(resident_bytes() - memory)
        logger.info("model loaded provider=%s model=%s seconds=%.1f", self.name, model.name, took)

    def check(self, options: SessionOptions) -> Sequence[str]:
        """OptionError where a session asks for what the model cannot do; what it will do in part only."""
        if self.cloud is not None:
            problem = self._no_fallback(options)
            return (*self.cloud.check(options), *([f"no fallback: {problem}"] if problem else ()))
        return () if self._engine is None else self._engine.check(options)

    @property
    def slowness(self) -> float:
        """See Calls: by how much time limits are longer here."""
        own = 1.0 if self._engine is None else self._engine.calls.slowness
        return own if self._fallback is None else max(own, self._fallback.slowness)

    def overdue_s(self) -> float:
        """By how much the worst of the calls into the model is past its deadline; negative where none is."""
        own = -math.inf if self._engine is None else self._engine.calls.overdue_s()
        return own if self._fallback is None else max(own, self._fallback.overdue_s())

    def _look_for_spare(self) -> None:
        if self._engine is not None and self._engine.spare_wanted:
            self._spare_wanted.set()

    async def keep_spare(self) -> None:
        """Have the engine make decoders ready before they are wanted. Runs for as long as the daemon does."""
        if self._fallback is not None:
            await self._fallback.keep_spare()
        while True:
            await self._spare_wanted.wait()
            self._spare_wanted = trio.Event()
            if self._engine is None or not self._engine.spare_wanted:
                continue
            try:
                await trio.to_thread.run_sync(self._engine.prepare_spare, abandon_on_cancel=True)
            except Exception:
                logger.exception("no recognizer could be made ready in advance")
                await trio.sleep(AGAIN_S)

    @asynccontextmanager
    async def recognizer(self, options: SessionOptions, emit: Emit) -> AsyncIterator[Recognizer]:
        """A recognizer for one session; `ready` must have returned."""
        self.recognizers += 1
        try:
            if self.cloud is not None:
                async with self._cloud_recognizer(self.cloud, options, emit) as recognizer:
                    yield recognizer
            elif self._engine is None:
                assert issubclass(self._class, STTInterface)
                async with _interface_recognizer(self._class(), emit) as recognizer:
                    yield recognizer
            elif self._engine.streaming:
                streaming = StreamingRecognizer(
                    self._engine, options, emit, self._limiter, self._decoders, self._look_for_spare
                )
                try:
                    yield streaming
                finally:
                    streaming.close()
            else:
                async with trio.open_nursery() as nursery:
                    interval = self.config.faster_whisper.partial_interval_ms / 1000
                    yield BatchRecognizer(self._engine, options, emit, self._scheduler, nursery, interval)
                    nursery.cancel_scope.cancel()
        finally:
            self.recognizers -= 1

    @asynccontextmanager
    async def _cloud_recognizer(self, cloud: Cloud, options: SessionOptions, emit: Emit) -> AsyncIterator[Recognizer]:
        local = None
        if self._fallback is not None and not self._no_fallback(options):
            local = partial(self._fallback.loaded_recognizer, _for_fallback(options))
        recognizer = FallbackRecognizer(self.name, self._breaker, emit, local, self.config.fallback)
        async with cloud.recognizer(options, recognizer) as recognizer.primary:
            try:
                yield recognizer
            finally:
                await recognizer.aclose()

    def _no_fallback(self, options: SessionOptions) -> str:
        """Why the local provider cannot take over a session with such options."""
        if self._fallback is not None:
            try:
                self._fallback.check(_for_fallback(options))
            except OptionError as error:
                return str(error)
        return ""

    @asynccontextmanager
    async def loaded_recognizer(self, options: SessionOptions, emit: Emit) -> AsyncIterator[Recognizer]:
        """See `recognizer`; ModelMissing or ModelError where the model is not there."""
        await self.ready()
        async with self.recognizer(options, emit) as recognizer:
            yield recognizer

    async def aclose(self) -> None:
        """Close what is kept open between sessions."""
        if self.cloud is not None:
            await self.cloud.aclose()


def _for_fallback(options: SessionOptions) -> SessionOptions:
    """Phrases are hints to a cloud; vosk would hear nothing else."""
    return replace(options, phrases=())


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

    async def accept(self, pieces: Sequence[bytes], *, confidence: float = 1.0) -> None:  # noqa: ARG002
        """See Recognizer."""
        for piece in pieces:
            self._audio += piece

    async def finish(self, *, settled: bool = False, confidence: float = 1.0) -> None:  # noqa: ARG002
        """See Recognizer."""
        text = await self._service.transcribe(bytes(self._audio))
        self._audio.clear()
        if not isinstance(text, str):
            raise RecognitionError(f"the provider returned no text, but {type(text).__name__}")
        if text:
            self._emit(Final(text))
