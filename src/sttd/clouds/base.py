"""Clouds: engines that other machines run. Audio leaves this machine."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from sttd.config.config import Config, SessionOptions
    from sttd.recognizers.base import CloudRecognizer, CloudSupervisor


class Cloud(ABC):
    """A provider in the network. It has no model to load; audio leaves the machine."""

    name: ClassVar[str]
    title: ClassVar[str]
    """Its name as people write it."""
    library: ClassVar[str]
    """The module that must be importable; the extra that brings it has the provider's name."""
    finds_endpoints: ClassVar[bool]
    """Whether it ends utterances by itself where the gate is off."""
    takes_phrases: ClassVar[bool] = False

    model = ""
    destination = ""
    """The host that audio is sent to."""
    problem = ""
    """Why it cannot be used at all, as it is set up; for clients."""

    @abstractmethod
    def __init__(self, config: Config) -> None:
        """ConfigError where there is no API key."""

    @abstractmethod
    def recognizer(
        self, options: SessionOptions, supervisor: CloudSupervisor
    ) -> AbstractAsyncContextManager[CloudRecognizer]:
        """A recognizer for one session."""

    def check(self, options: SessionOptions) -> Sequence[str]:
        """What the provider will do in part only."""
        return (f"phrases: {self.name} makes no use of them",) if options.phrases and not self.takes_phrases else ()

    def state(self) -> dict[str, float]:
        """What is left of the account's limits, as far as it is known here."""
        return {}

    async def aclose(self) -> None:
        """Close what is kept open between sessions."""
        return


def printable(text: str) -> str:
    """A text from a peer's JSON, in which there may be half of a surrogate pair, which no message can carry on."""
    return text.encode(errors="replace").decode().strip()


def finite(value: str | float) -> float:
    """A number from a peer's JSON, in which Python's parser lets NaN and Infinity through; ValueError for these."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"not a finite number: {number}")
    return number
