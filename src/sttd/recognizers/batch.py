"""A session's recognizer over an engine that decodes whole utterances."""

from __future__ import annotations

import logging
import re
from functools import partial
from typing import TYPE_CHECKING

import trio

from sttd.audio.format import seconds
from sttd.events import Partial
from sttd.recognizers.base import Recognizer, final_at
from sttd.recognizers.scheduler import Scheduler, Turn, Urgency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sttd.config.config import SessionOptions
    from sttd.engines.base import BatchEngine, Transcript
    from sttd.recognizers.base import Emit

logger = logging.getLogger(__name__)
CONTEXT_S = 3.0
"""After a longer silence the text before it does not help to recognize the next utterance."""

CONTEXT_CHARACTERS = 200
"""Maximum length of the text that is kept as context."""

PARTIALS_SHARE = 4
"""The minimum of new audio before the next partial, as a multiple of the last partial's decoding time."""


class BatchRecognizer(Recognizer):
    """Gathers an utterance and decodes it at its end, or at a pause, which may be the end.

    Partials are decoded from the audio so far, one at a time, and only while a worker would be idle. Calls share only
    the model, so the calls of a session that has ended are abandoned.
    """

    def __init__(
        self,
        engine: BatchEngine,
        options: SessionOptions,
        emit: Emit,
        scheduler: Scheduler,
        nursery: trio.Nursery,
        *,
        live: bool = True,
    ) -> None:
        """`live`: see Protocol."""
        self._engine = engine
        self._options = options
        self._emit = emit
        self._scheduler = scheduler
        self._nursery = nursery
        self._live = live
        self._interval = engine.partial_interval_s
        self._at = 0.0
        self._said = ""
        self._silent_from = 0.0
        self._begin()

    def _begin(self) -> None:
        self._audio = bytearray()
        self._early: _Early | None = None
        self._next_partial = self._interval
        self._stable = StablePrefix()
        self._partial_running = False

    async def start(self, at: float) -> None:
        """See Recognizer."""
        self._begin()
        self._at = at
        if at - self._silent_from > CONTEXT_S:
            self._said = ""

    async def accept(self, pieces: Sequence[bytes], *, confidence: float = 1.0) -> None:
        """See Recognizer."""
        for piece in pieces:
            self._audio += piece
        due = self._options.partials and seconds(self._audio) >= self._next_partial
        if due and not self._partial_running and (turn := self._scheduler.spare_turn()):
            self._partial_running = True
            self._nursery.start_soon(self._partial, turn, self._audio, self._stable, confidence)

    async def _partial(self, turn: Turn, audio: bytearray, stable: StablePrefix, confidence: float) -> None:
        pcm = bytes(audio)
        started = trio.current_time()
        found = await self._try(turn, pcm, confidence, final=False)
        if audio is not self._audio:
            return  # the utterance is over
        took = trio.current_time() - started
        self._partial_running = False
        self._next_partial = seconds(pcm) + max(self._interval, PARTIALS_SHARE * took)
        if found and found.text and not found.tentative:
            self._emit(Partial(stable.extended(found.text)))

    async def pause(self, *, confidence: float = 1.0) -> None:
        """See Recognizer. If the utterance is over, the result of this decoding is its final, else a partial."""
        before = self._early
        if before and before.length == len(self._audio):
            return
        if before and not before.turn.called.is_set():
            before.scope.cancel()
            before = before.before
        self._early = _Early(self._scheduler.turn(Urgency.PAUSE), len(self._audio), before, confidence)
        if not self._live:
            return  # there is no hurry; but the text is to be that of a live session
        self._nursery.start_soon(self._decode_early, self._early, bytes(self._audio), self._audio, self._stable)

    async def _decode_early(self, early: _Early, pcm: bytes, audio: bytearray, stable: StablePrefix) -> None:
        with early.scope:
            if early.before:  # a session uses one worker at a time
                await early.before.done.wait()
                early.before = None
            early.found = await self._try(early.turn, pcm, early.confidence, final=True)
        early.done.set()
        found = early.found
        if self._options.partials and found and found.text and not found.tentative and audio is self._audio:
            self._emit(Partial(stable.extended(found.text)))

    async def _try(self, turn: Turn, pcm: bytes, confidence: float, *, final: bool) -> Transcript | None:
        try:
            return await self._decode(turn, pcm, confidence, final=final)
        except Exception:
            # `finish` decodes the same audio again and reports the error.
            logger.warning("an utterance could not be decoded before its end", exc_info=True)
            return None

    async def finish(self, *, settled: bool = False, confidence: float = 1.0) -> None:
        """See Recognizer."""
        audio, early = bytes(self._audio), self._early
        self._silent_from = self._at + seconds(audio)
        self._begin()
        if early and not (settled or early.length == len(audio)):
            early.scope.cancel()
            early = None
        found = None
        if early and self._live:
            early.turn.urgency = Urgency.FINAL
            await early.done.wait()
            found = early.found
        elif early:  # nothing was decoded yet
            audio, confidence = audio[: early.length], early.confidence
        if found is None:
            urgency = Urgency.FINAL if self._live else Urgency.BEHIND
            found = await self._decode(self._scheduler.turn(urgency), audio, confidence, final=True)
        self._said = f"{self._said} {found.text}".strip()[-CONTEXT_CHARACTERS:]
        if found.text:
            self._emit(final_at(self._at, found, self._silent_from))

    async def _decode(self, turn: Turn, pcm: bytes, confidence: float, *, final: bool) -> Transcript:
        call = partial(
            self._engine.transcribe,
            pcm,
            self._options,
            final=final,
            live=self._live,
            context=self._said,
            confidence=confidence,
        )
        return await turn.run(partial(self._engine.calls.timed, seconds(pcm), call))


class _Early:
    """The decoding of an utterance that may be over, before its end is known."""

    def __init__(self, turn: Turn, length: int, before: _Early | None, confidence: float) -> None:
        """`length`: bytes of audio to decode. `before`: an earlier decoding that may still run."""
        self.turn = turn
        self.length = length
        self.before = before
        self.confidence = confidence
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        self.found: Transcript | None = None


class StablePrefix:
    """Keeps partials from flickering: words on which two consecutive hypotheses agree stay, except for punctuation.

    This is local agreement (Liu et al., "Low-Latency Sequence-to-Sequence Speech Recognition", 2020), word by word.
    """

    def __init__(self) -> None:
        self._agreed: list[str] = []
        self._last: list[str] = []

    def extended(self, hypothesis: str) -> str:
        """Take a hypothesis; return the agreed words, followed by the rest of the hypothesis."""
        words = hypothesis.split()
        for said, again in zip(self._last[len(self._agreed) :], words[len(self._agreed) :], strict=False):
            if _bare(said) != _bare(again):
                break
            self._agreed.append(again)
        self._last = words
        for place, (said, again) in enumerate(zip(self._agreed, words, strict=False)):
            if _bare(said) == _bare(again):
                self._agreed[place] = again
        return " ".join(self._agreed + words[len(self._agreed) :])


def _bare(word: str) -> str:
    """Return a word without case and punctuation, which may change with the words that follow."""
    return re.sub(r"[^\w']", "", word).casefold()
