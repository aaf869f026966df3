"""A session's recognizer in the cloud, with a local recognizer that takes over an utterance when the cloud fails."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from sttd.errors import NothingHeard, SttdError
from sttd.events import Event, Failed, Final, Problem
from sttd.metrics import FALLBACKS
from sttd.recognizers.base import CloudSupervisor, Recognizer, cloud_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from sttd.errors import CloudError
    from sttd.recognizers.base import CloudRecognizer, Emit

    Local = Callable[[Emit], AbstractAsyncContextManager[Recognizer]]

logger = logging.getLogger(__name__)
MAX_PAUSE_S = 300.0
PIECE = 3200  # bytes: 100 ms, the size of the pipeline's pieces


class Breaker:
    """A circuit breaker for all sessions: after a failure the cloud is not used for a pause, then tried once.

    See Nygard, "Release It!" (2007), chapter 5.2. Each failed trial doubles the pause.
    """

    def __init__(self, pause_s: float) -> None:
        """`pause_s`: the first pause in seconds; 0 disables the breaker."""
        self._first = pause_s
        self._pause = self._until = 0.0
        self._trial = False

    def admit(self, now: float) -> bool:
        """Return whether the caller may try the cloud. After a pause one caller is admitted, as a trial."""
        if not self._pause:
            return True
        if now < self._until:
            return False
        self._until = now + self._pause
        self._trial = True
        return True

    def failed(self, now: float, *, permanent: bool = False) -> None:
        """Begin a pause. `permanent`: the failure will not pass soon, so the pause has its maximum length."""
        if not self._first or (now < self._until and not self._trial):
            return  # several utterances failed together; only the first one counts
        self._trial = False
        self._pause = MAX_PAUSE_S if permanent else min(max(self._first, 2 * self._pause), MAX_PAUSE_S)
        self._until = now + self._pause

    def succeeded(self) -> None:
        """Admit all callers again."""
        self._pause = self._until = 0.0
        self._trial = False


class FallbackRecognizer(Recognizer, CloudSupervisor):
    """Passes utterances to the cloud, and those that fail there to a local recognizer.

    Without a local recognizer the client gets an error. The session goes on in both cases.
    """

    def __init__(self, cloud: str, breaker: Breaker, emit: Emit, local: Local | None, local_name: str) -> None:
        """`cloud` and `local_name` are the names of the providers; `local` borrows a local recognizer."""
        self.primary: CloudRecognizer
        self._cloud = cloud
        self._breaker = breaker
        self._emit = emit
        self._local = local
        self._local_name = local_name
        self._current: Recognizer | None = None
        self._borrowed = AsyncExitStack()

    def emit_from_cloud(self, event: Event) -> None:
        """See CloudSupervisor."""
        self._emit(replace(event, engine=self._cloud) if isinstance(event, Final) else event)

    def cloud_answered(self) -> None:
        """See CloudSupervisor."""
        self._breaker.succeeded()

    def _emit_from_local(self, event: Event) -> None:
        if isinstance(event, Final):
            event = replace(event, engine=self._local_name, fallback_from=self._cloud)
        self._emit(event)

    def _emit_late(self, event: Event) -> None:
        self._emit(replace(event, late=True) if isinstance(event, Final) else event)

    async def start(self, at: float) -> None:
        """See Recognizer."""
        if self._local and not self._breaker.admit(trio.current_time()):
            await self.primary.drain()
            if await self._take_over(at, b"") is None:
                return
        self._current = self.primary
        try:
            await self.primary.start(at)
        except Exception as error:
            await self._switch(cloud_failure(self._cloud, error))

    async def accept(self, pieces: Sequence[bytes], *, confidence: float = 1.0) -> None:
        """See Recognizer."""
        if self._current is not self.primary:
            if self._current is not None:
                await self._current.accept(pieces, confidence=confidence)
            return
        try:
            await self.primary.accept(pieces, confidence=confidence)
        except Exception as error:
            await self._switch(cloud_failure(self._cloud, error))

    async def pause(self, *, confidence: float = 1.0) -> None:
        """See Recognizer."""
        if self._current is not None:
            await self._current.pause(confidence=confidence)

    async def finish(self, *, settled: bool = False, confidence: float = 1.0) -> None:
        """See Recognizer."""
        if self._current is self.primary:
            try:
                await self.primary.finish(settled=settled, confidence=confidence)
            except Exception as error:
                await self._switch(cloud_failure(self._cloud, error))
                settled = False
        if self._current is not None and self._current is not self.primary:
            await self._current.finish(settled=settled, confidence=confidence)
        await self.aclose()

    async def aclose(self) -> None:
        """Give back the local recognizer, if one is borrowed."""
        self._current = None
        await self._borrowed.aclose()

    async def _switch(self, error: CloudError) -> None:
        """Have the local recognizer take over the audio that no final covers, until the utterance ends."""
        at, pcm = self.primary.take_pending()
        self._current = None
        await self.primary.drain()
        await self._save(error, at, pcm)

    async def _save(self, error: CloudError, at: float, pcm: bytes) -> None:
        """Pass audio to the local recognizer; if there is none, emit the error."""
        if not isinstance(error, NothingHeard):
            self._note(error)
        message = str(error)
        if self._local is not None:
            problem = await self._take_over(at, pcm)
            if problem is None:
                return
            message = f"{error}; {self._local_name} cannot take over: {problem}"
        if error.heard is not None:
            self.emit_from_cloud(error.heard)
        elif not isinstance(error, NothingHeard):
            self._emit(Failed(message, Problem.PROVIDER, lasting=error.permanent))

    def _note(self, error: CloudError) -> None:
        logger.warning("%s%s", error, f"; {self._local_name} takes over" if self._local else "")
        self._breaker.failed(trio.current_time(), permanent=error.permanent)

    async def _take_over(self, at: float, pcm: bytes) -> SttdError | None:
        """Continue the utterance with a local recognizer. Returns the error if there is none."""
        assert self._local is not None
        try:
            local = await self._borrowed.enter_async_context(self._local(self._emit_from_local))
        except SttdError as error:
            logger.error("%s cannot take over: %s", self._local_name, error)
            return error
        FALLBACKS.labels(self._cloud, self._local_name).inc()
        self._current = local
        await local.start(at)
        await local.accept([pcm[start : start + PIECE] for start in range(0, len(pcm), PIECE)])
        return None

    async def rescue(self, error: CloudError, utterances: Sequence[tuple[float, bytes]]) -> None:
        """See CloudSupervisor. Another utterance may be open, so these utterances get a separate recognizer."""
        apart = FallbackRecognizer(self._cloud, self._breaker, self._emit_late, self._local, self._local_name)
        for at, pcm in utterances:
            try:
                await apart._save(error, at, pcm)
                if apart._current is not None:
                    await apart._current.finish()
            finally:
                await apart.aclose()
