"""What a provider is: the configured source of text, as the daemon and its sessions see it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from sttd.config.config import Config, SessionOptions
    from sttd.recognizers.base import Emit, Recognizer


class Provider(ABC):
    """One for the daemon, shared by all sessions. It lends each session a recognizer."""

    finds_endpoints: bool = False
    """Whether recognizers end utterances by themselves where the gate is off."""
    title = ""
    """The name of the cloud that audio is sent to, as people write it; empty if audio stays on this machine."""
    destination = ""
    """The host that audio is sent to; empty if audio stays on this machine."""
    files_each: ClassVar[int] = 1
    """The number of open files that a session needs."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.name = config.provider
        self.model = ""
        """The name of the model that is in use; empty until it is known."""
        self.recognizers = 0
        """The number of recognizers that are lent."""

    @property
    def status(self) -> str:
        """Why no session can get text now, as a sentence for people; empty if sessions can."""
        return ""

    @property
    def languages(self) -> Sequence[str]:
        """The languages that sessions may be in, as codes; empty if no session can get text, for want of a model."""
        return (self.config.language or "en",)

    @property
    def slowness(self) -> float:
        """The factor by which time limits are longer on this machine (see Calls)."""
        return 1.0

    def overdue_s(self) -> float:
        """Return the seconds by which the latest call into a recognizer is past its deadline.

        Negative if no call is; -inf if none runs.
        """
        return -math.inf

    async def ready(self, *, abandon: bool = False) -> None:  # noqa: ARG002
        """Wait until recognizers can be lent, loading the model if necessary.

        With `abandon`, a load that is cancelled goes on in its thread. Raises ModelMissing or ModelError.
        """
        return

    def check(self, options: SessionOptions) -> Sequence[str]:  # noqa: ARG002
        """Return warnings about options that are followed in part only. Raises OptionError if one cannot be used.

        A model that is not loaded yet has no objections.
        """
        return ()

    @asynccontextmanager
    async def recognizer(self, options: SessionOptions, emit: Emit, *, live: bool = True) -> AsyncIterator[Recognizer]:
        """Lend a recognizer to a session. `ready` must have returned. `live`: see Protocol."""
        self.recognizers += 1
        try:
            async with self._open(options, emit, live=live) as recognizer:
                yield recognizer
        finally:
            self.recognizers -= 1

    @abstractmethod
    def _open(self, options: SessionOptions, emit: Emit, *, live: bool) -> AbstractAsyncContextManager[Recognizer]:
        """Return a recognizer that lives as long as the context."""

    def account(self) -> Mapping[str, float]:
        """Return what is left of a cloud account's limits, by name, as far as it is known here."""
        return {}

    async def run(self) -> None:
        """Do what has to be done between sessions. Runs as long as the daemon."""
        return

    async def aclose(self) -> None:
        """Close what is kept open between sessions."""
        return
