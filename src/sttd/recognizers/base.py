"""A session's side of recognition: what a session tells its recognizer, and what comes back."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sttd.errors import CloudError
from sttd.events import Event, Final

if TYPE_CHECKING:
    from sttd.engines.base import Transcript

logger = logging.getLogger(__name__)

Emit = Callable[[Event], None]


class Recognizer(ABC):
    """One session's recognizer, as the session sees it: told of utterances, it emits partials and finals."""

    @abstractmethod
    async def start(self, at: float) -> None:
        """An utterance begins `at` seconds after the stream's start."""

    @abstractmethod
    async def accept(self, pieces: Sequence[bytes], *, confidence: float = 1.0) -> None:
        """Audio of the utterance, in the pieces in which it came.

        Here and below `confidence` is the voice gate's, from 0 to 1, that the utterance so far is speech.
        """

    async def pause(self, *, confidence: float = 1.0) -> None:  # noqa: ARG002
        """The utterance may be over, and what was accepted be all of it. If not, more is accepted."""
        return

    @abstractmethod
    async def finish(self, *, settled: bool = False, confidence: float = 1.0) -> None:
        """The utterance is over: emit its final if there is text.

        `settled`: all that was heard in it was accepted before the last `pause`.
        """


class CloudRecognizer(Recognizer):
    """A session's recognizer in the cloud. Where it fails it raises CloudError, and another can take over."""

    @abstractmethod
    def take_pending(self) -> tuple[float, bytes]:
        """Give up the open utterance: when the part begins that no final has covered, in the stream; its audio."""

    async def drain(self) -> None:
        """Wait until no final of an earlier utterance is to come."""
        return


class Backstop(ABC):
    """Who stands behind a CloudRecognizer."""

    @abstractmethod
    def emit_from_cloud(self, event: Event) -> None:
        """A partial or a final."""

    @abstractmethod
    def cloud_answered(self) -> None:
        """The cloud works."""

    @abstractmethod
    async def rescue(self, error: CloudError, utterances: Sequence[tuple[float, bytes]]) -> None:
        """See to utterances that failed after `finish` had returned: when each began in the stream, and its audio."""


def cloud_failure(name: str, error: Exception) -> CloudError:
    """What went wrong on the way to a cloud, whatever it is: the cloud's failure, and no end of a session."""
    if isinstance(error, CloudError):
        return error
    logger.error("%s: a fault that nobody expected", name, exc_info=error)
    return CloudError(f"{name} cannot be used ({type(error).__name__})")


def final_at(offset: float, transcript: Transcript) -> Final:
    """The final of an utterance that began `offset` seconds after the stream did."""
    return final_placed(transcript, [(0.0, offset)])


def final_placed(transcript: Transcript, anchors: Sequence[tuple[float, float]]) -> Final:
    """The final of audio that was put together from parts of the stream.

    `anchors` are the times at which the parts begin, in that audio and in the stream.
    """
    words = []
    for word in transcript.words:
        began, at = max((anchor for anchor in anchors if anchor[0] <= word.start), default=anchors[0])
        start, end = (round(time - began + at, 3) for time in (word.start, word.end))
        words.append(replace(word, start=start, end=end))
    return Final(transcript.text, tuple(words))
