"""The interface of a cloud provider, to which audio is sent over the network."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from sttd.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from sttd.config.config import Config, SessionOptions
    from sttd.recognizers.base import CloudRecognizer, CloudSupervisor


class Cloud(ABC):
    """A provider in the network. It has no model to load."""

    name: ClassVar[str]
    title: ClassVar[str]
    """The provider's name as people write it."""
    library: ClassVar[str]
    """The module that must be importable. The extra that installs it has the provider's name."""
    finds_endpoints: ClassVar[bool]
    """Whether the provider ends utterances itself if the gate is off."""
    takes_phrases: ClassVar[bool] = False
    """Whether the session option `phrases` has an effect."""

    languages: ClassVar[Sequence[str]] = ()
    """The languages that the provider understands; empty if that depends on the model."""

    model = ""
    destination = ""
    """The host to which audio is sent."""
    problem = ""
    """Why this configuration cannot work, as a message for clients; empty if it can."""

    @abstractmethod
    def __init__(self, config: Config) -> None:
        """Raises ConfigError if there is no API key or the base URL cannot be used."""

    @abstractmethod
    def recognizer(
        self, options: SessionOptions, supervisor: CloudSupervisor
    ) -> AbstractAsyncContextManager[CloudRecognizer]:
        """Return a recognizer for one session."""

    def check(self, options: SessionOptions) -> Sequence[str]:
        """Return warnings about options that the provider ignores, in whole or in part.

        Raises OptionError if the options ask for something that the provider cannot do.
        """
        if options.translate:
            raise OptionError(f"translate: {self.title} is not asked to translate")
        return (f"phrases: {self.name} makes no use of them",) if options.phrases and not self.takes_phrases else ()

    def state(self) -> dict[str, float]:
        """Return the remaining quota of the account by name, as far as it is known here."""
        return {}

    async def aclose(self) -> None:
        """Close the connections that are kept open between sessions."""
        return


def printable(text: str) -> str:
    """Clean a text from a peer's JSON, which may contain half of a surrogate pair: that cannot be encoded."""
    return text.encode(errors="replace").decode().strip()


def finite(value: str | float) -> float:
    """Return a number from a peer's JSON. Raises ValueError for NaN and Infinity, which Python's parser accepts."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"not a finite number: {number}")
    return number
