"""Every error that sttd raises on purpose, and what follows from it wherever it surfaces."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar

from sttd.events import Ending, Problem

if TYPE_CHECKING:
    from sttd.events import Final


def first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """One of the exceptions in a group; which one hardly matters, they fell together."""
    inner = group.exceptions[0]
    return first(inner) if isinstance(inner, BaseExceptionGroup) else inner


class SttdError(Exception):
    """Base of all; its text is written for the person who has to act on it."""

    exit_code: ClassVar[int] = 70
    """Of the command line (sysexits.h)."""
    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    """Of an answer over HTTP."""
    ending: ClassVar[Ending] = Ending.RECOGNIZER_FAILED
    """How a session ends; the wire has a close code for each."""
    problem: ClassVar[Problem] = Problem.RECOGNIZER
    """The code in an error event."""
    summary: ClassVar[str] = ""
    """What the end of a connection says, if the text itself is not for everybody."""


class ConfigError(SttdError):
    """A setting, a file or a command line that cannot be used."""

    exit_code = 78


class Unavailable(SttdError):
    """Something that is needed is not here: an extra, a provider, a port, a source to download from."""

    exit_code = 69
    status = HTTPStatus.SERVICE_UNAVAILABLE


class ModelMissing(SttdError):
    """The model is not in the store. The message is the one that the JSON protocol documents."""

    exit_code = 66
    status = HTTPStatus.SERVICE_UNAVAILABLE
    ending = Ending.MODEL_MISSING
    problem = Problem.NO_MODEL

    def __init__(self, message: str = "No STT model available") -> None:
        super().__init__(message)


class ModelError(SttdError):
    """A model is there and does not load, or does not match its digests."""

    exit_code = 66
    status = HTTPStatus.SERVICE_UNAVAILABLE
    ending = Ending.MODEL_FAILED
    problem = Problem.MODEL
    summary = "the model does not load"


class RecognitionError(SttdError):
    """A recognizer failed in the middle of a session."""

    summary = "recognition failed"


class CloudError(RecognitionError):
    """A cloud provider gave no text; its message is for clients, so it holds no key, organization or request id."""

    status = HTTPStatus.BAD_GATEWAY
    problem = Problem.PROVIDER

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        """`permanent`: trying again soon is of no use."""
        super().__init__(message)
        self.permanent = permanent
        self.heard: Final | None = None
        """What the cloud had understood by then, which is better than nothing."""


class NothingHeard(CloudError):
    """A cloud provider treats audio this short as silence; that is not an error."""


class OptionError(SttdError):
    """A client asked for something that this session cannot give; the session goes on as it was."""

    status = HTTPStatus.BAD_REQUEST
    ending = Ending.POLICY
    problem = Problem.OPTION
