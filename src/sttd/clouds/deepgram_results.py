"""Assemble Deepgram's results to partials and finals, without I/O.

An utterance consists of consecutive results with `is_final`. It is complete with `speech_final`, an UtteranceEnd or the
answer to a Finalize. See https://developers.deepgram.com/docs/understand-endpointing-interim-results.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sttd.clouds.base import finite, printable
from sttd.engines.base import Transcript
from sttd.events import Word

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EPSILON_S = 0.01


@dataclass(frozen=True, slots=True)
class Heard:
    """The text of an utterance so far, complete if `final`, and the time `until` which it covers the audio.

    `until` and the word times are in seconds of this connection's audio.
    """

    transcript: Transcript
    final: bool
    until: float


class Assembler:
    """Assembles the results of one connection."""

    def __init__(self) -> None:
        self.until = 0.0
        """Seconds of audio that results cover."""
        self.finalized = False
        """Whether the answer to a Finalize has arrived since `expect_finalize`."""
        self._over = 0.0
        self._committed: list[Transcript] = []
        self._committed_until = 0.0
        self._interim = Transcript("")

    def receive(self, message: Mapping[str, Any]) -> Heard | None:
        """Take a message of the server. Returns the utterance so far if the message changes it, else None.

        Raises ValueError if the message is not as documented.
        """
        if message.get("type") == "UtteranceEnd" and self._committed:
            return self._take_committed()
        if message.get("type") != "Results":
            return None
        try:
            end = finite(finite(message["start"]) + finite(message["duration"]))
            found = _transcript(message["channel"]["alternatives"])
        except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"not as documented: {error!r}") from error
        answered = bool(message.get("from_finalize"))
        if end <= self._over + EPSILON_S:
            return None  # a late result of an utterance that has ended
        self.finalized |= answered
        self.until = max(self.until, end)
        found = self._wanted(found)
        if not message.get("is_final"):
            self._interim = found
        else:
            self._interim = Transcript("")
            self._committed_until = end
            if found.text:
                self._committed.append(found)
            if message.get("speech_final") or answered:
                return self._take_committed()
        return Heard(self.so_far, final=False, until=self.until)

    def _wanted(self, found: Transcript) -> Transcript:
        """Remove the words of an utterance that has ended."""
        words = tuple(word for word in found.words if (word.start + word.end) / 2 > self._over)
        if len(words) == len(found.words):
            return found
        return Transcript(" ".join(word.word for word in words), words)

    @property
    def so_far(self) -> Transcript:
        """The text since the last final; its end may still change."""
        return _joined([*self._committed, self._interim])

    def _take_committed(self) -> Heard:
        """Take the results that do not change any more. An interim result stays, since it will be sent again."""
        found = Heard(_joined(self._committed), final=True, until=self._committed_until)
        self._committed.clear()
        return found

    def take(self) -> Heard:
        """Take the text since the last final, as a final."""
        found = Heard(self.so_far, final=True, until=self.until)
        self._committed.clear()
        self._interim = Transcript("")
        return found

    def expect_finalize(self) -> None:
        """Note that a Finalize is being sent."""
        self.finalized = False

    def end(self, until: float) -> None:
        """Drop all results for audio before `until`, those to come included."""
        self.take()
        self._over = self.until = until


def _joined(parts: Sequence[Transcript]) -> Transcript:
    said = [part for part in parts if part.text]
    return Transcript(" ".join(part.text for part in said), tuple(word for part in said for word in part.words))


def _transcript(alternatives: Sequence[Mapping[str, Any]]) -> Transcript:
    best = alternatives[0]
    words = tuple(
        Word(
            printable(str(word.get("punctuated_word") or word["word"])),
            finite(word["start"]),
            finite(word["end"]),
            finite(word["confidence"]),
        )
        for word in best.get("words") or ()
    )
    return Transcript(printable(str(best["transcript"])), words)
