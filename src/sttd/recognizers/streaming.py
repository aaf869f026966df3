"""A session's recognizer over an engine that decodes audio as it arrives."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from sttd.audio.format import seconds
from sttd.events import Final, Partial
from sttd.recognizers.base import Recognizer, final_at

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sttd.config.config import SessionOptions
    from sttd.engines.base import Decoder, StreamingEngine, Transcript
    from sttd.recognizers.base import Emit

SURE = 0.8
"""Minimum confidence of the voice gate for events before the end of an utterance."""
PATIENCE_S = 5.0
"""Maximum time that an utterance waits for a free decoder."""


class StreamingRecognizer(Recognizer):
    """Borrows a decoder for each utterance, so that a silent session holds none.

    Calls into a decoder are never abandoned: during a call the decoder must not be freed or given to another session.
    """

    def __init__(
        self,
        engine: StreamingEngine,
        options: SessionOptions,
        emit: Emit,
        limiter: trio.CapacityLimiter,
        decoders: trio.Semaphore,
        borrowed: Callable[[], None],
        *,
        behind: trio.CapacityLimiter | None = None,
    ) -> None:
        """`decoders` limits the decoders in use; `borrowed` is called after a decoder was borrowed.

        `behind` limits the open utterances of all sessions that are not live, so that the others find a thread and a
        decoder.
        """
        self._engine = engine
        self._options = options
        self._emit = emit
        self._limiter = limiter
        self._decoders = decoders
        self._borrowed = borrowed
        self._behind = behind
        self._waited = False
        self._at = self._heard_s = 0.0
        self._holding = False
        self._decoder: Decoder | None = None
        self._unsure: list[Final] = []  # finals within this utterance that wait until the gate is sure

    async def start(self, at: float) -> None:
        """See Recognizer. With the gate off an utterance may last as long as the session, so it is not limited."""
        self._at, self._heard_s = at, 0.0
        if self._behind is not None:
            await self._behind.acquire_on_behalf_of(self)
            self._waited = True
        if self._options.gate:
            # A decoder may stay in use for long. Needing more memory than planned is better than losing speech.
            with trio.move_on_after(PATIENCE_S):
                await self._decoders.acquire()
                self._holding = True

    async def accept(self, pieces: Sequence[bytes], *, confidence: float = 1.0) -> None:
        """See Recognizer. One thread call decodes all pieces, but one by one, so that the text does not depend on how
        many come together."""
        fresh = self._decoder is None
        call = partial(self._engine.calls.timed, sum(map(seconds, pieces)), partial(self._accept, pieces, confidence))
        await trio.to_thread.run_sync(call, limiter=self._limiter)
        if fresh:
            self._borrowed()

    def _accept(self, pieces: Sequence[bytes], confidence: float) -> None:
        if self._decoder is None:
            self._decoder = self._engine.decoder(self._options)
        for number, piece in enumerate(pieces, 1):
            wanted = self._options.partials and number == len(pieces)
            found = self._decoder.accept(piece, partial=wanted)
            self._heard_s += seconds(piece)
            if found and found.final and found.transcript.text:
                self._unsure.append(final_at(self._at, found.transcript, self._at + self._heard_s))
            if confidence > SURE:
                for final in self._take_unsure():
                    trio.from_thread.run_sync(self._emit, final)
                if found and not (found.final and found.transcript.text):
                    trio.from_thread.run_sync(self._emit, Partial(found.transcript.text))

    def _take_unsure(self) -> list[Final]:
        taken, self._unsure = self._unsure, []
        return taken

    async def finish(self, *, settled: bool = False, confidence: float = 1.0) -> None:  # noqa: ARG002 - all is decoded
        """See Recognizer."""
        if confidence > SURE:
            for final in self._take_unsure():
                self._emit(final)
        if self._decoder is not None:
            call = partial(self._engine.calls.timed, 0.0, partial(self._decoder.finish, confidence))
            found: Transcript = await trio.to_thread.run_sync(call, limiter=self._limiter)
            if found.text:
                self._emit(final_at(self._at, found, self._at + self._heard_s))
        self.close()

    def close(self) -> None:
        """Give back the decoder, if one is borrowed."""
        self._unsure = []
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None
        if self._holding:
            self._holding = False
            self._decoders.release()
        if self._waited and self._behind is not None:
            self._waited = False
            self._behind.release_on_behalf_of(self)
