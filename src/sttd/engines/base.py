"""Engines: one model in memory, shared by all sessions, and its blocking calls."""

from __future__ import annotations

import math
import time
import wave
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, ClassVar, TypeVar

from sttd.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from sttd.config.config import Config, SessionOptions
    from sttd.events import Word

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Transcript:
    """Text of some audio; word times are seconds from where that audio began."""

    text: str
    words: tuple[Word, ...] = ()
    tentative: bool = False
    """Better not shown before it is final."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What a streaming decoder says after a piece of audio; `final` closes an utterance."""

    transcript: Transcript
    final: bool


class Decoder(ABC):
    """One session's decoder in a streaming engine. Blocking calls, from one thread at a time.

    Word times count from the first audio that the decoder was given.
    """

    @abstractmethod
    def accept(self, pcm: bytes, *, partial: bool) -> Hypothesis | None:
        """Take audio; a final where the engine found an endpoint of its own, else a partial if asked for."""

    @abstractmethod
    def finish(self, confidence: float = 1.0) -> Transcript:
        """End the utterance; the decoder is ready for the next.

        `confidence`: see Engine.transcribe. Without text where the decoder does not believe that this was speech.
        """

    def close(self) -> None:
        """Give up what it holds. It is not used any more; does not block."""
        return


SLOWER_THAN_SAMPLE = 3.0
"""How many times as long as in the warm-up a call may take: other calls run beside it, and noise is decoded twice."""

TIMES_AUDIO, TIMEOUT_S = 3.0, 10.0
"""A call has so many times the duration of its audio, and so many seconds more, times Calls.slowness."""


def sample() -> bytes:
    """Return a spoken sentence to warm up with: PCM, 16-bit, 16 kHz, mono."""
    with wave.open(str(files("sttd").joinpath("sample.wav"))) as file:
        return bytes(file.readframes(file.getnframes()))


class Calls:
    """The calls into a recognizer that run now, and the deadline of each.

    The deadline follows the duration of the audio and the speed of the machine: a slow machine is not a stuck one, and
    a call that hangs is found on any machine.
    """

    def __init__(self) -> None:
        self._due: dict[object, float] = {}
        self.slowness = 1.0
        """The factor by which all time limits are longer than on a machine that decodes faster than people speak."""

    def warm_up(self, audio_s: float, call: Callable[[], T]) -> T:
        """Make the first `call()`, and learn from its duration how fast this machine is."""
        started = time.monotonic()
        result = call()
        self.slowness = max(1.0, SLOWER_THAN_SAMPLE * (time.monotonic() - started) / audio_s)
        return result

    @contextmanager
    def watched(self, audio_s: float) -> Iterator[None]:
        """Count what runs in this context as one call with `audio_s` seconds of audio. Any thread may enter it."""
        key = object()
        self._due[key] = time.monotonic() + self.slowness * (TIMES_AUDIO * audio_s + TIMEOUT_S)
        try:
            yield
        finally:
            del self._due[key]

    def timed(self, audio_s: float, call: Callable[[], T]) -> T:
        """Return `call()`, watched, in the calling thread."""
        with self.watched(audio_s):
            return call()

    def overdue_s(self) -> float:
        """Return the seconds by which the latest call is past its deadline; negative if none is, -inf without calls."""
        return time.monotonic() - min(self._due.copy().values(), default=math.inf)


class Engine(ABC):
    """A model in memory, shared by all sessions. Its calls block and may come from several threads.

    An engine is either a StreamingEngine or a BatchEngine.
    """

    name: ClassVar[str]
    extra: ClassVar[str]
    """The optional dependency of the package `sttd` that brings the engine's library."""
    library: ClassVar[str]
    """The module that must be importable."""
    takes_phrases: ClassVar[bool] = False
    """Whether a session may say which phrases it expects."""

    def __init__(self, config: Config, model: Path, languages: Sequence[str] = ()) -> None:
        """`model` is a folder; `languages` are the codes that the model understands, or empty if that is unknown."""
        self.config = config
        self.model = model
        self.languages = tuple(languages)
        self.calls = Calls()

    @property
    @abstractmethod
    def workers(self) -> int:
        """The number of calls that may run at once."""

    @abstractmethod
    def load(self) -> None:
        """Load the model and decode something with it. Raises ModelError, with the details, if that fails."""

    def check(self, options: SessionOptions) -> Sequence[str]:
        """Return warnings about options that the model follows in part only.

        Raises OptionError if a session asks for something that the model cannot do.
        """
        language = base_language(options.language)
        if language and self.languages and language not in self.languages:
            raise OptionError(
                f"language: the model {self.model.name} does not understand {options.language!r}; "
                f"it understands {', '.join(self.languages)}"
            )
        return (f"phrases: {self.name} makes no use of them",) if options.phrases and not self.takes_phrases else ()


class StreamingEngine(Engine):
    """An engine that decodes audio as it comes, with a decoder for each open utterance, and finds endpoints itself."""

    @property
    def decoders(self) -> int:
        """The number of decoders that may be in use at once."""
        return self.workers

    @property
    def spare_wanted(self) -> bool:
        """Whether `prepare_spare` would save time for a later utterance."""
        return False

    def prepare_spare(self) -> None:
        """Make a decoder ready in advance."""
        return

    @abstractmethod
    def decoder(self, options: SessionOptions) -> Decoder:
        """Return a decoder for one utterance."""


class BatchEngine(Engine):
    """An engine that decodes whole utterances."""

    @property
    @abstractmethod
    def partial_interval_s(self) -> float:
        """Seconds of new audio between two partials of an utterance."""

    @abstractmethod
    def transcribe(
        self,
        pcm: bytes,
        options: SessionOptions,
        *,
        final: bool = True,
        context: str = "",
        confidence: float = 1.0,
    ) -> Transcript:
        """Return the text of an utterance (PCM, 16-bit, 16 kHz, mono); a rough hypothesis is enough unless `final`.

        `context` is the text just before. `confidence` (0 to 1) is the voice gate's that this is speech: the lower it
        is, the better the evidence for a text has to be.
        """


def base_language(tag: str) -> str:
    """`en` for `en`, `en-US` and `en_us`."""
    return tag.replace("_", "-").split("-", 1)[0].lower()
