"""The interface of an engine: one model in memory, shared by all sessions, with blocking calls."""

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
    """The text of some audio. Word times are in seconds from the beginning of that audio."""

    text: str
    words: tuple[Word, ...] = ()
    tentative: bool = False
    """Whether the text is too doubtful to be shown as a partial."""
    language: str = ""
    """The code of the language that the audio was recognized in; empty if the engine does not tell."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """The result of a streaming decoder after a piece of audio. `final` ends an utterance."""

    transcript: Transcript
    final: bool


class Decoder(ABC):
    """A decoder of a streaming engine, for one session. Its calls block; one thread at a time may use it.

    Word times count from the first audio that the decoder received.
    """

    @abstractmethod
    def accept(self, pcm: bytes, *, partial: bool) -> Hypothesis | None:
        """Decode PCM (16-bit, 16 kHz, mono).

        Returns a final if the engine found an endpoint of its own, else a partial if `partial` is true, else None.
        """

    @abstractmethod
    def finish(self, confidence: float = 1.0) -> Transcript:
        """End the utterance and return its text, which is empty if the decoder judges that it was not speech.

        `confidence`: see BatchEngine.transcribe. The decoder is then ready for the next utterance.
        """

    def close(self) -> None:
        """Release the decoder's resources, without blocking. The decoder must not be used afterwards."""
        return


SLOWER_THAN_SAMPLE = 3.0
"""Factor by which a call may be slower than the warm-up: other calls run beside it, and noise is decoded twice."""

TIMES_AUDIO, TIMEOUT_S = 3.0, 10.0
"""The timeout of a call is (TIMES_AUDIO * the duration of its audio + TIMEOUT_S) * Calls.slowness."""


def sample() -> bytes:
    """Return a spoken sentence to warm up with: PCM, 16-bit, 16 kHz, mono."""
    with wave.open(str(files("sttd").joinpath("sample.wav"))) as file:
        return bytes(file.readframes(file.getnframes()))


class Calls:
    """The running calls into a recognizer, and the deadline of each.

    A deadline depends on the duration of the audio and the speed of the machine, so that a slow machine is not taken
    for a stuck one, and a call that hangs is found on any machine.
    """

    def __init__(self) -> None:
        self._due: dict[object, float] = {}
        self.slowness = 1.0
        """Factor for all timeouts: 1 on a machine that decodes faster than people speak, else greater."""

    def warm_up(self, audio_s: float, call: Callable[[], T]) -> T:
        """Return `call()`, the first call, with `audio_s` seconds of audio. Its duration sets `slowness`."""
        started = time.monotonic()
        result = call()
        self.slowness = max(1.0, SLOWER_THAN_SAMPLE * (time.monotonic() - started) / audio_s)
        return result

    @contextmanager
    def watched(self, audio_s: float) -> Iterator[None]:
        """Count the code in this context as one call with `audio_s` seconds of audio. Any thread may enter it."""
        key = object()
        self._due[key] = time.monotonic() + self.slowness * (TIMES_AUDIO * audio_s + TIMEOUT_S)
        try:
            yield
        finally:
            del self._due[key]

    def timed(self, audio_s: float, call: Callable[[], T]) -> T:
        """Return `call()`, watched, in the calling thread. `audio_s`: the duration of its audio."""
        with self.watched(audio_s):
            return call()

    def overdue_s(self) -> float:
        """Return by how many seconds a call is past its deadline: the maximum of all calls, -inf without calls."""
        return time.monotonic() - min(self._due.copy().values(), default=math.inf)


class Engine(ABC):
    """A model in memory, shared by all sessions. Its calls block and may come from several threads.

    An engine is either a StreamingEngine or a BatchEngine.
    """

    name: ClassVar[str]
    extra: ClassVar[str]
    """The extra of the package `sttd` that installs the engine's library."""
    library: ClassVar[str]
    """The module that must be importable."""
    takes_phrases: ClassVar[bool] = False
    """Whether the session option `phrases` has an effect."""
    translates = False
    """Whether the model can translate to English."""
    usual_languages: ClassVar[Sequence[str]] = ()
    """The languages of a model of which nothing else is known before it is loaded."""

    def __init__(self, config: Config, model: Path, languages: Sequence[str] = ()) -> None:
        """`model` is a folder; `languages` are the codes that the model understands, or empty if that is unknown."""
        self.config = config
        self.model = model
        self.languages = tuple(languages)
        self.calls = Calls()

    @property
    @abstractmethod
    def workers(self) -> int:
        """Maximum number of calls at once."""

    @abstractmethod
    def load(self) -> None:
        """Load the model and decode a sentence with it. Raises ModelError, with the details, if that fails."""

    def check(self, options: SessionOptions) -> Sequence[str]:
        """Return warnings about options that the model ignores, in whole or in part.

        Raises OptionError if the options ask for something that the model cannot do.
        """
        language = base_language(options.language)
        if language and self.languages and language not in self.languages:
            raise OptionError(
                f"language: the model {self.model.name} does not understand {options.language!r}; "
                f"it understands {', '.join(self.languages)}"
            )
        if options.translate and not self.translates:
            raise OptionError(f"translate: the model {self.model.name} does not translate")
        return (f"phrases: {self.name} makes no use of them",) if options.phrases and not self.takes_phrases else ()


class StreamingEngine(Engine):
    """An engine that decodes audio as it arrives. It finds endpoints itself; each open utterance has a decoder."""

    @property
    def decoders(self) -> int:
        """Maximum number of decoders in use at once."""
        return self.workers

    @property
    def spare_wanted(self) -> bool:
        """Whether `prepare_spare` would save time for a later utterance."""
        return False

    def prepare_spare(self) -> None:
        """Prepare a decoder for a later utterance. Blocks."""
        return

    @abstractmethod
    def decoder(self, options: SessionOptions) -> Decoder:
        """Return a decoder for one utterance."""


class BatchEngine(Engine):
    """An engine that decodes whole utterances."""

    @property
    @abstractmethod
    def partial_interval_s(self) -> float:
        """Minimum seconds of new audio between two partials of an utterance."""

    @abstractmethod
    def transcribe(
        self,
        pcm: bytes,
        options: SessionOptions,
        *,
        final: bool = True,
        live: bool = True,
        context: str = "",
        confidence: float = 1.0,
    ) -> Transcript:
        """Return the text of an utterance (PCM, 16-bit, 16 kHz, mono). If not `final`, a rough hypothesis is enough.

        If not `live`, nobody waits for the text: the engine may take longer to miss fewer words.
        `context` is the text just before the utterance. `confidence` (0 to 1) is the voice gate's confidence that the
        audio is speech: the lower it is, the better the evidence for a text must be.
        """


def base_language(tag: str) -> str:
    """Return the language without its region: `en` for `en`, `en-US` and `en_us`."""
    return tag.replace("_", "-").split("-", 1)[0].lower()
