"""The interface of a session's recognizer: the session passes utterances in, and events come back."""

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
    """One session's recognizer. It takes one utterance at a time and emits partials and finals.

    `confidence` is always the voice gate's confidence (0 to 1) that the utterance so far is speech.
    """

    @abstractmethod
    async def start(self, at: float) -> None:
        """Begin an utterance, `at` seconds after the stream began."""

    @abstractmethod
    async def accept(self, pieces: Sequence[bytes], *, confidence: float = 1.0) -> None:
        """Take audio of the utterance (PCM, 16-bit, 16 kHz, mono), in the pieces that the pipeline made."""

    async def pause(self, *, confidence: float = 1.0) -> None:  # noqa: ARG002
        """Note that the utterance may be over. If it is not, `accept` follows; if it is, `finish`."""
        return

    @abstractmethod
    async def finish(self, *, settled: bool = False, confidence: float = 1.0) -> None:
        """End the utterance, and emit its final if there is text.

        `settled`: all speech of the utterance was accepted before the last `pause`.
        """


class CloudRecognizer(Recognizer):
    """A session's recognizer in the cloud. Its methods raise CloudError if the cloud fails."""

    @abstractmethod
    def take_pending(self) -> tuple[float, bytes]:
        """Give up the open utterance. Returns the part that no final covers: its begin in the stream, in seconds, and
        its audio."""

    async def drain(self) -> None:
        """Wait until all finals of earlier utterances are emitted."""
        return


class CloudSupervisor(ABC):
    """Receives the events of a CloudRecognizer, and takes over the utterances that it fails to recognize."""

    @abstractmethod
    def emit_from_cloud(self, event: Event) -> None:
        """Emit a partial or a final from the cloud."""

    @abstractmethod
    def cloud_answered(self) -> None:
        """Note that the cloud works."""

    @abstractmethod
    async def rescue(self, error: CloudError, utterances: Sequence[tuple[float, bytes]]) -> None:
        """Take over utterances that failed with `error` after `finish` had returned.

        Each utterance is its begin in the stream, in seconds, and its audio.
        """


def cloud_failure(name: str, error: Exception) -> CloudError:
    """Return `error` as a CloudError, whatever it is, so that a cloud's fault does not end the session."""
    if isinstance(error, CloudError):
        return error
    logger.error("%s: an unexpected fault", name, exc_info=error)
    return CloudError(f"{name} cannot be used ({type(error).__name__})")


def final_at(offset: float, transcript: Transcript, end: float) -> Final:
    """Return the final of an utterance that began `offset` seconds after the stream, and ended at `end`."""
    return replace(final_placed(transcript, [(0.0, offset)]), end=end)


def final_placed(transcript: Transcript, anchors: Sequence[tuple[float, float]]) -> Final:
    """Return the final of audio that consists of parts of the stream, with word times of the stream.

    `anchors` has a pair for each part: the second at which the part begins in that audio, and in the stream.
    """
    words = []
    for word in transcript.words:
        began, at = max((anchor for anchor in anchors if anchor[0] <= word.start), default=anchors[0])
        start, end = (round(time - began + at, 3) for time in (word.start, word.end))
        words.append(replace(word, start=start, end=end))
    return Final(transcript.text, tuple(words), start=anchors[0][1], language=transcript.language)
