"""Every error that sttd raises on purpose, with the exit code (sysexits.h) that the command line gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sttd.events import Final


def first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """One of the exceptions in a group; which one hardly matters, they fell together."""
    inner = group.exceptions[0]
    return first(inner) if isinstance(inner, BaseExceptionGroup) else inner


class SttdError(Exception):
    """Base of all; its text is written for the person who has to act on it."""

    exit_code = 70


class ConfigError(SttdError):
    """A setting, a file or a command line that cannot be used."""

    exit_code = 78


class Unavailable(SttdError):
    """Something that is needed is not here: an extra, a provider, a port, a source to download from."""

    exit_code = 69


class ModelMissing(SttdError):
    """The model is not in the store. The message is the one that the JSON protocol documents."""

    exit_code = 66

    def __init__(self, message: str = "No STT model available") -> None:
        super().__init__(message)


class ModelError(SttdError):
    """A model is there and does not load, or does not match its digests."""

    exit_code = 66


class RecognitionError(SttdError):
    """A recognizer failed in the middle of a session."""


class CloudError(RecognitionError):
    """A cloud provider gave no text; its message is for clients, so it holds no key, organization or request id."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        """`permanent`: trying again soon is of no use."""
        super().__init__(message)
        self.permanent = permanent
        self.heard: Final | None = None
        """What the cloud had understood by then, which is better than nothing."""


class NothingHeard(CloudError):
    """A cloud provider found so little audio no answer worth; that is no fault of its."""


class OptionError(SttdError):
    """A client asked for something that this session cannot give; the session goes on as it was."""
