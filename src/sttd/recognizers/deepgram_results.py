"""Deepgram's results put together to partials and finals, without I/O.

https://developers.deepgram.com/docs/understand-endpointing-interim-results: results that are `is_final` follow one
another; `speech_final`, an UtteranceEnd or the answer to a Finalize says that what was said is complete.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sttd.events import Word
from sttd.recognizers.base import Transcript, finite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EPSILON_S = 0.01


@dataclass(frozen=True, slots=True)
class Heard:
    """What was said so far; `final` if it is complete. `until` and word times: seconds of audio of this connection."""

    transcript: Transcript
    final: bool
    until: float


class Assembler:
    """The results of one connection."""

    def __init__(self) -> None:
        self.until = 0.0
        """Seconds of audio that results have come for."""
        self.finalized = False
        """Whether the answer to a Finalize has come since `expect_finalize`."""
        self._over = 0.0
        self._committed: list[Transcript] = []
        self._interim = Transcript("")

    def receive(self, message: Mapping[str, Any]) -> Heard | None:
        """What a message of the server adds. ValueError where it is not as documented."""
        if message.get("type") == "UtteranceEnd" and self._committed:
            return self.take()
        if message.get("type") != "Results":
            return None
        try:
            end = finite(message["start"]) + finite(message["duration"])
            found = _transcript(message["channel"]["alternatives"])
        except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"not as documented: {error!r}") from error
        answered = bool(message.get("from_finalize"))
        if end <= self._over + EPSILON_S and not answered:
            return None  # of an utterance that was given up waiting for
        self.finalized |= answered
        self.until = max(self.until, end)
        found = self._wanted(found)
        if not message.get("is_final"):
            self._interim = found
        else:
            self._interim = Transcript("")
            if found.text:
                self._committed.append(found)
            if message.get("speech_final") or answered:
                return self.take()
        return Heard(self._so_far(), final=False, until=self.until)

    def _wanted(self, found: Transcript) -> Transcript:
        """Without words of an utterance that is over."""
        words = tuple(word for word in found.words if (word.start + word.end) / 2 > self._over)
        if len(words) == len(found.words):
            return found
        return Transcript(" ".join(word.word for word in words), words)

    def _so_far(self) -> Transcript:
        parts = [part for part in (*self._committed, self._interim) if part.text]
        words = tuple(word for part in parts for word in part.words)
        return Transcript(" ".join(part.text for part in parts), words)

    def take(self) -> Heard:
        """All that was said since the last final, as a final."""
        found = Heard(self._so_far(), final=True, until=self.until)
        self._committed.clear()
        self._interim = Transcript("")
        return found

    def expect_finalize(self) -> None:
        """A Finalize is sent."""
        self.finalized = False

    def end(self, until: float) -> None:
        """Nothing is wanted any more of the audio up to then."""
        self.take()
        self._over = until


def _transcript(alternatives: Sequence[Mapping[str, Any]]) -> Transcript:
    best = alternatives[0]
    words = tuple(
        Word(
            str(word.get("punctuated_word") or word["word"]),
            finite(word["start"]),
            finite(word["end"]),
            finite(word["confidence"]),
        )
        for word in best.get("words") or ()
    )
    return Transcript(str(best["transcript"]).strip(), words)
