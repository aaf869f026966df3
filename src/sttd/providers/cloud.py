"""The provider over a cloud, with the local provider that takes over when the cloud fails."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import trio

from sttd.errors import ConfigError, ModelError, ModelMissing, OptionError
from sttd.providers.base import Provider
from sttd.recognizers.fallback import Breaker, FallbackRecognizer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from sttd.clouds.base import Cloud
    from sttd.config.config import Config, SessionOptions
    from sttd.recognizers.base import Emit, Recognizer

logger = logging.getLogger(__name__)
LOOK_AGAIN_S = 5.0


class CloudProvider(Provider):
    """Sends audio to a cloud. One circuit breaker serves all sessions."""

    files_each: ClassVar[int] = 2

    def __init__(self, config: Config, cloud_class: type[Cloud], fallback: Provider | None) -> None:
        """Raises ConfigError if the settings forbid a cloud, or if there is no API key."""
        super().__init__(config)
        if config.local_only:
            raise ConfigError(f"local_only: the provider {self.name} would send audio to other machines")
        self._cloud = cloud_class(config)
        self._fallback = fallback
        self._breaker = Breaker(config.fallback_pause_s)
        self.model = self._cloud.model
        self.title, self.destination = self._cloud.title, self._cloud.destination
        self.finds_endpoints = self._cloud.finds_endpoints and (fallback is None or fallback.finds_endpoints)
        if self._cloud.problem:
            logger.error("%s%s", self._cloud.problem, "; the fallback serves" if fallback else "")

    @property
    def status(self) -> str:
        """See Provider."""
        return "" if self._fallback else self._cloud.problem

    @property
    def languages(self) -> Sequence[str]:
        """See Provider."""
        return self._cloud.languages or super().languages

    @property
    def slowness(self) -> float:
        """See Provider."""
        return self._fallback.slowness if self._fallback else 1.0

    def overdue_s(self) -> float:
        """See Provider: a cloud has deadlines of its own."""
        return self._fallback.overdue_s() if self._fallback else super().overdue_s()

    async def ready(self, *, abandon: bool = False) -> None:
        """See Provider. The cloud can serve without the fallback, whose faults are reported when it is needed."""
        if self._fallback:
            with suppress(ModelMissing, ModelError):
                await self._fallback.ready(abandon=abandon)

    def check(self, options: SessionOptions) -> Sequence[str]:
        """See Provider."""
        objection = self._objection(options)
        return (*self._cloud.check(options), *([f"no fallback: {objection}"] if objection else ()))

    def _objection(self, options: SessionOptions) -> str:
        """Why the fallback cannot take over a session with such options."""
        if self._fallback:
            try:
                self._fallback.check(_for_fallback(options))
            except OptionError as error:
                return str(error)
        return ""

    @asynccontextmanager
    async def _open(self, options: SessionOptions, emit: Emit, *, live: bool) -> AsyncIterator[Recognizer]:
        local = None
        if self._fallback and not self._objection(options):
            local = partial(_ready_recognizer, self._fallback, _for_fallback(options), live=live)
        recognizer = FallbackRecognizer(self.name, self._breaker, emit, local, self.config.fallback)
        async with self._cloud.recognizer(options, recognizer) as recognizer.primary:
            try:
                yield recognizer
            finally:
                await recognizer.aclose()

    def account(self) -> Mapping[str, float]:
        """See Provider."""
        return self._cloud.state()

    async def run(self) -> None:
        """See Provider."""
        if self._fallback:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._fallback.run)
                await self._load_fallback(self._fallback)

    async def _load_fallback(self, fallback: Provider) -> None:
        """Try until its model is loaded, so that it is there when the cloud fails, whether clients come or not."""
        while fallback.status:
            with suppress(ModelMissing, ModelError):
                await fallback.ready(abandon=True)
            await trio.sleep(LOOK_AGAIN_S)

    async def aclose(self) -> None:
        """See Provider."""
        await self._cloud.aclose()
        if self._fallback:
            await self._fallback.aclose()


@asynccontextmanager
async def _ready_recognizer(
    provider: Provider, options: SessionOptions, emit: Emit, *, live: bool
) -> AsyncIterator[Recognizer]:
    """Lend a recognizer once its model is there. Raises ModelMissing or ModelError."""
    await provider.ready()
    async with provider.recognizer(options, emit, live=live) as recognizer:
        yield recognizer


def _for_fallback(options: SessionOptions) -> SessionOptions:
    """Phrases are hints to a cloud; vosk would hear nothing else."""
    return replace(options, phrases=())
