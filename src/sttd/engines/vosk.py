"""The vosk engine: streaming, with one model for all sessions and a pool of warm recognizers that they share."""

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
"""Samples after which a recognizer is not used again: the memory of its graph never shrinks, and its times are 32-bit
floats."""
SURE, HARDLY_SURE, SURE_OF_WORDS = 0.92, 0.8, 0.5
"""A Vosk model makes words of any audio. They count if the voice gate's confidence is over SURE, or over HARDLY_SURE
with a mean confidence of the words over SURE_OF_WORDS."""
RECOGNIZER_BYTES = 80 << 20
"""The memory that a recognizer may grow to (docs/performance.md)."""


class VoskEngine(StreamingEngine):
    """A Vosk model. Decoding releases the GIL, so each core decodes one session at a time in its own thread."""

    name: ClassVar[str] = "vosk"
    extra: ClassVar[str] = "vosk"
    library: ClassVar[str] = "vosk"
    takes_phrases: ClassVar[bool] = True

    _model: Any = None
    _pool: Pool

    @property
    def workers(self) -> int:
        """See Engine. By default one per core."""
        return self.config.vosk.workers or len(os.sched_getaffinity(0))

    @property
    def decoders(self) -> int:
        """See StreamingEngine. By default eight per core, which it decodes in real time, or as many as fit into a third
        of the memory."""
        by_memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 3 // RECOGNIZER_BYTES
        return self.config.vosk.recognizers or max(self.workers, min(8 * self.workers, by_memory))

    def load(self) -> None:
        """See Engine. Warms a recognizer for each worker."""
        # The package looks up the home folder when it is imported, and a dynamic user of systemd may have none.
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
        """Warm a recognizer for each worker."""
        with ThreadPoolExecutor(self.workers) as threads:
            for warming in [threads.submit(self._pool.warm) for _ in range(min(self.workers, self.decoders))]:
                warming.result()

    def decoder(self, options: SessionOptions) -> Decoder:
        """See StreamingEngine. Without a free warm recognizer, a new one takes about a tenth of a second."""
        if options.phrases:
            return VoskDecoder(PoolItem(_recognizer(self._model, options.phrases)), options, lambda _item: None)
        return VoskDecoder(self._pool.borrow(), options, self._pool.give_back)

    @property
    def spare_wanted(self) -> bool:
        """See StreamingEngine: whether the next utterance would get a cold recognizer."""
        return self._pool.low

    def prepare_spare(self) -> None:
        """See StreamingEngine."""
        self._pool.warm()

    def check(self, options: SessionOptions) -> Sequence[str]:
        """See Engine. Phrases need a model whose graph is composed at run time, and words that the model knows."""
        warnings = super().check(options)
        if not options.phrases:
            return warnings
        if not (self.model / "graph/Gr.fst").exists() and not (self.model / "Gr.fst").exists():
            raise OptionError(f"phrases: the model {self.model.name} cannot be limited to phrases; use a small model")
        # vosk separates words at spaces only. It ends the process at <eps>, whose number is 0.
        words = {word for phrase in options.phrases for word in phrase.split(" ") if word}
        unknown = sorted(word for word in words if self._number(word) <= 0)
        if len(unknown) == len(words):
            if not words:
                raise OptionError("phrases: there are no words in them")
            raise OptionError(f"phrases: the model {self.model.name} knows none of these words: {', '.join(unknown)}")
        if unknown:
            return (*warnings, f"phrases: the model {self.model.name} does not know: {', '.join(unknown)}")
        return warnings

    def _number(self, word: str) -> int:
        try:
            return int(self._model.vosk_model_find_word(word))
        except UnicodeEncodeError:
            raise OptionError(f"phrases: {word!r} is not valid text") from None


class PoolItem:
    """A KaldiRecognizer, the number of samples it has heard, and whether it holds audio of an utterance (not `clean`).

    `broken`: a call into the recognizer has raised an exception, so the recognizer must not be used again.
    """

    def __init__(self, recognizer: Any) -> None:
        self.recognizer = recognizer
        self.heard = 0
        self.clean = True
        self.broken = False
        self._ended = False

    def accept(self, pcm: bytes) -> bool:
        """Decode PCM; return whether the model's own rules find the end of an utterance."""
        self.broken = True  # until the call returns
        self.heard += len(pcm) // SAMPLE_BYTES
        self.clean = False
        self._ended = bool(self.recognizer.AcceptWaveform(pcm))
        self.broken = False
        return self._ended

    def finish(self) -> Any:
        """Return vosk's result for the audio since the last result.

        Vosk then starts with fresh features and keeps its graph, unless it has just ended an utterance itself.
        """
        found = json.loads(self.recognizer.FinalResult())
        self.clean = not self._ended
        return found

    def scrub(self) -> None:
        """Forget the audio of the last session."""
        if not self.clean:
            self.accept(bytes(PIECE))
            self.finish()


class Pool:
    """Warm recognizers that utterances borrow. All operations may be called from several threads.

    Operations:
    - `borrow` takes the warmest free recognizer and makes it forget its last session, which costs at most the decoding
      of 100 ms of silence. If none is free it makes a new one (about 100 ms of processor time), even beyond
      `capacity`: needing more memory is better than losing speech.
    - `give_back` returns a recognizer, without blocking. One that is broken or old, or beyond `capacity`, is dropped.
    - `warm` adds a recognizer that has decoded a sentence, and `low` tells when that is useful.

    Invariants: a recognizer is either free or borrowed by one utterance; `_made` counts both kinds, including
    recognizers that are being made; a borrowed recognizer holds no audio of another session.

    A recognizer composes its graph while it decodes, so a new one needs some ten times the processor time of one that
    has heard speech before. So the free ones are a stack: those used last, which are the warmest, are used next.
    """

    def __init__(self, model: Any, capacity: int) -> None:
        self._model = model
        self._capacity = capacity
        self._lock = threading.Lock()
        self._free: list[PoolItem] = []  # the warmest last
        self._made = 0

    @property
    def low(self) -> bool:
        """Whether no recognizer is free and there may be more."""
        return not self._free and self._made < self._capacity

    def borrow(self) -> PoolItem:
        """Return a recognizer that holds no audio. Blocks."""
        with self._lock:
            item = self._free.pop() if self._free else None
        if item is None:
            with self._counted():
                return PoolItem(_recognizer(self._model))
        try:
            item.scrub()
        except Exception:
            self.give_back(item)
            raise
        return item

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a recognizer that is made in this context, unless that fails."""
        with self._lock:
            self._made += 1
        try:
            yield
        except BaseException:
            with self._lock:
                self._made -= 1
            raise

    def give_back(self, item: PoolItem) -> None:
        """Return a borrowed recognizer, or drop it. Does not block."""
        with self._lock:
            if item.broken or item.heard >= RETIRED_AFTER or self._made > self._capacity:
                self._made -= 1
            else:
                self._free.append(item)

    def warm(self) -> None:
        """Add a recognizer that has decoded a sentence. Blocks."""
        with self._counted():
            item = PoolItem(_recognizer(self._model))
            pcm = sample()
            for start in range(0, len(pcm), PIECE):
                item.accept(pcm[start : start + PIECE])
            item.finish()
        with self._lock:
            self._free.insert(0, item)


class VoskDecoder(Decoder):
    """A borrowed recognizer."""

    def __init__(self, item: PoolItem, options: SessionOptions, give_back: Callable[[PoolItem], None]) -> None:
        self._item = item
        self._give_back = give_back
        self._before = item.heard / RATE
        self._words = options.words
        item.recognizer.SetWords(True)  # always, since `finish` needs the confidences

    def accept(self, pcm: bytes, *, partial: bool) -> Hypothesis | None:
        """See Decoder."""
        if self._item.accept(pcm):
            return Hypothesis(self._transcript(json.loads(self._item.recognizer.Result())), final=True)
        if partial:
            return Hypothesis(Transcript(json.loads(self._item.recognizer.PartialResult())["partial"]), final=False)
        return None

    def finish(self, confidence: float = 1.0) -> Transcript:
        """See Decoder."""
        found = self._item.finish()
        words = found.get("result", ())
        sure = sum(item["conf"] for item in words) / len(words) if words else 0.0
        return self._transcript(found if is_speech(confidence, sure) else {})

    def close(self) -> None:
        """See Decoder."""
        self._give_back(self._item)

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
    """Return whether words were spoken, from the gate's confidence and the mean confidence of the words (0 to 1)."""
    return confidence > SURE or (confidence > HARDLY_SURE and of_words > SURE_OF_WORDS)


def _recognizer(model: Any, phrases: Sequence[str] = ()) -> Any:
    import vosk

    if phrases:
        return vosk.KaldiRecognizer(model, RATE, json.dumps(phrases, ensure_ascii=False))
    return vosk.KaldiRecognizer(model, RATE)
