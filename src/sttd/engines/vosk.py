"""The vosk engine: streaming, one model for all sessions, and warm recognizers that they take turns with."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from sttd.audio.format import RATE, SAMPLE_BYTES, seconds
from sttd.engines.base import Decoder, Hypothesis, StreamingEngine, Transcript, sample
from sttd.errors import ModelError, OptionError
from sttd.events import Word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sttd.config.config import SessionOptions

PIECE = RATE // 10 * SAMPLE_BYTES
RETIRED_AFTER = 3600 * RATE
"""Samples after which a recognizer is not used again: it never gives back what its graph has grown to, and its times
are 32-bit floats."""
SURE, HARDLY_SURE, SURE_OF_WORDS = 0.92, 0.8, 0.5
"""A Vosk model makes words of everything it is given. They count where the voice gate was sure that it was speech, or
hardly sure, and the model is sure of the words."""
MEMORY = 80 << 20
"""What a recognizer may grow to (docs/performance.md)."""


class VoskEngine(StreamingEngine):
    """A Vosk model. Decoding releases the GIL, so one thread a core decodes one session each."""

    name: ClassVar[str] = "vosk"
    extra: ClassVar[str] = "vosk"
    library: ClassVar[str] = "vosk"
    takes_phrases: ClassVar[bool] = True

    _model: Any = None
    _pool: Pool

    @property
    def workers(self) -> int:
        """One a core."""
        return self.config.vosk.workers or len(os.sched_getaffinity(0))

    @property
    def decoders(self) -> int:
        """Eight a core, as many as it decodes in real time, or what a third of the memory holds."""
        by_memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 3 // MEMORY
        return self.config.vosk.recognizers or max(self.workers, min(8 * self.workers, by_memory))

    def load(self) -> None:
        """Load the model and warm a recognizer for each worker."""
        # The package asks for the user's folder as it is imported, and a user that systemd made up may have none.
        os.environ.setdefault("HOME", "/")
        import vosk

        vosk.SetLogLevel(-1)
        try:
            self._model = vosk.Model(str(self.model))
            self._pool = Pool(self._model, self.decoders)
            self.calls.warm_up(seconds(sample()), self._warm_all)
        except Exception as error:  # vosk raises bare Exception
            raise ModelError(f"the Vosk model in {self.model} does not load: {error}") from error

    def _warm_all(self) -> None:
        """A recognizer for each worker."""
        with ThreadPoolExecutor(self.workers) as threads:
            for warming in [threads.submit(self._pool.warm) for _ in range(min(self.workers, self.decoders))]:
                warming.result()

    def decoder(self, options: SessionOptions) -> Decoder:
        """A warm recognizer, if one is free; making one takes about a tenth of a second."""
        if options.phrases:
            return VoskDecoder(Lent(_recognizer(self._model, options.phrases)), options, lambda _lent: None)
        return VoskDecoder(self._pool.borrow(), options, self._pool.give_back)

    @property
    def spare_wanted(self) -> bool:
        """Whether the next session would get a cold recognizer."""
        return self._pool.low

    def prepare_spare(self) -> None:
        """Warm one more."""
        self._pool.warm()

    def check(self, options: SessionOptions) -> Sequence[str]:
        """See Engine: phrases need a model whose graph is composed at run time, and words that it knows."""
        warnings = super().check(options)
        if not options.phrases:
            return warnings
        if not (self.model / "graph/Gr.fst").exists() and not (self.model / "Gr.fst").exists():
            raise OptionError(f"phrases: the model {self.model.name} cannot be limited to phrases; use a small one")
        # vosk parts words at spaces alone, and ends the process at <eps>, whose number is 0.
        words = {word for phrase in options.phrases for word in phrase.split(" ") if word}
        unknown = sorted(word for word in words if self._number(word) <= 0)
        if len(unknown) == len(words):
            names = ", ".join(unknown) or "there are none"
            raise OptionError(f"phrases: the model {self.model.name} knows none of these words: {names}")
        if unknown:
            return (*warnings, f"phrases: the model {self.model.name} does not know: {', '.join(unknown)}")
        return warnings

    def _number(self, word: str) -> int:
        try:
            return int(self._model.vosk_model_find_word(word))
        except UnicodeEncodeError:
            raise OptionError(f"phrases: {word!r} is no text") from None


class Lent:
    """A KaldiRecognizer, how many samples it has heard, and whether it still remembers some of them."""

    def __init__(self, recognizer: Any) -> None:
        self.recognizer = recognizer
        self.heard = 0
        self.clean = True
        self.broken = False
        self._ended = False

    def accept(self, pcm: bytes) -> bool:
        """Decode; whether that ends an utterance by the model's own rules."""
        self.broken = True  # unless the call returns
        self.heard += len(pcm) // SAMPLE_BYTES
        self.clean = False
        self._ended = bool(self.recognizer.AcceptWaveform(pcm))
        self.broken = False
        return self._ended

    def finish(self) -> Any:
        """The result of what was heard since the last one.

        After it vosk begins with fresh features and keeps its graph, unless it had just ended an utterance itself.
        """
        found = json.loads(self.recognizer.FinalResult())
        self.clean = not self._ended
        return found

    def scrub(self) -> None:
        """Forget what a session has said."""
        if not self.clean:
            self.accept(bytes(PIECE))
            self.finish()


class Pool:
    """Warm recognizers, for whoever has audio to decode. May be used from several threads.

    A recognizer composes its graph as it decodes, so a new one needs some ten times the processor time of one that has
    heard speech before.
    """

    def __init__(self, model: Any, most: int) -> None:
        self._model = model
        self._most = most
        self._lock = threading.Lock()
        self._free: list[Lent] = []  # the warmest last
        self._made = 0

    @property
    def low(self) -> bool:
        """Whether none is free and there may be more."""
        return not self._free and self._made < self._most

    def borrow(self) -> Lent:
        """The warmest that is free, without memory of who had it before; else a new one."""
        with self._lock:
            lent = self._free.pop() if self._free else None
        if lent is None:
            with self._one_more():
                return Lent(_recognizer(self._model))
        try:
            lent.scrub()
        except Exception:
            self.give_back(lent)
            raise
        return lent

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        """Count a recognizer that is being made."""
        with self._lock:
            self._made += 1
        try:
            yield
        except BaseException:
            with self._lock:
                self._made -= 1
            raise

    def give_back(self, lent: Lent) -> None:
        """Let others have it, if it is good for that and there are not too many. Does not block."""
        with self._lock:
            if lent.broken or lent.heard >= RETIRED_AFTER or self._made > self._most:
                self._made -= 1
            else:
                self._free.append(lent)

    def warm(self) -> None:
        """Add a recognizer that has heard speech."""
        with self._one_more():
            lent = Lent(_recognizer(self._model))
            pcm = sample()
            for start in range(0, len(pcm), PIECE):
                lent.accept(pcm[start : start + PIECE])
            lent.finish()
        with self._lock:
            self._free.insert(0, lent)


class VoskDecoder(Decoder):
    """A recognizer for as long as it is lent."""

    def __init__(self, lent: Lent, options: SessionOptions, give_back: Callable[[Lent], None]) -> None:
        self._lent = lent
        self._give_back = give_back
        self._before = lent.heard / RATE
        self._words = options.words
        lent.recognizer.SetWords(True)  # it finds them all the same

    def accept(self, pcm: bytes, *, partial: bool) -> Hypothesis | None:
        """See Decoder."""
        if self._lent.accept(pcm):
            return Hypothesis(self._transcript(json.loads(self._lent.recognizer.Result())), final=True)
        if partial:
            return Hypothesis(Transcript(json.loads(self._lent.recognizer.PartialResult())["partial"]), final=False)
        return None

    def finish(self, confidence: float = 1.0) -> Transcript:
        """See Decoder."""
        found = self._lent.finish()
        words = found.get("result", ())
        sure = sum(item["conf"] for item in words) / len(words) if words else 0.0
        return self._transcript(found if is_speech(confidence, sure) else {})

    def close(self) -> None:
        """See Decoder."""
        self._give_back(self._lent)

    def _transcript(self, found: Any) -> Transcript:
        words = tuple(
            Word(
                item["word"],
                round(item["start"] - self._before, 3),
                round(item["end"] - self._before, 3),
                round(item["conf"], 3),
            )
            for item in found.get("result", ())
            if self._words
        )
        return Transcript(found.get("text", ""), words)


def is_speech(confidence: float, of_words: float) -> bool:
    """Judge words by the voice gate's confidence that they are speech, and the model's mean confidence in them."""
    return confidence > SURE or (confidence > HARDLY_SURE and of_words > SURE_OF_WORDS)


def _recognizer(model: Any, phrases: Sequence[str] = ()) -> Any:
    import vosk

    if phrases:
        return vosk.KaldiRecognizer(model, RATE, json.dumps(phrases, ensure_ascii=False))
    return vosk.KaldiRecognizer(model, RATE)
