"""The shapes of recognition: the documented interface, engines (one model, blocking calls), session recognizers."""

from __future__ import annotations

import logging
import math
import time
import wave
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING, ClassVar, TypeVar

from sttd.errors import CloudError, OptionError, RecognitionError
from sttd.events import Event, Final, Word

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from sttd.config import Config, SessionOptions

logger = logging.getLogger(__name__)

T = TypeVar("T")
TextHandler = Callable[[str], Awaitable[None]]
Emit = Callable[[Event], None]


class STTInterface(ABC):
    """Interface for speech-to-text services, as documented for `/api/v1/ws`.

    A class registered under the entry-point group `sttd.providers` is served on every endpoint: sttd makes one
    instance a session and hands it one utterance a call.
    """

    @abstractmethod
    async def initialize(self, text_handler: TextHandler | None = None) -> None:
        """Initialize the service. A service that finds text on its own time gives it to `text_handler`."""

    @abstractmethod
    async def transcribe(self, data: bytes | bytearray) -> str:
        """Transcribe audio (PCM, 16-bit little-endian, 16000 Hz, mono) to text; empty where there is no speech."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connection to the service."""

    @abstractmethod
    def is_open(self) -> bool:
        """Whether the service can transcribe."""


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


def sample() -> bytes:
    """A spoken sentence, 16 kHz mono s16, to warm up with."""
    with wave.open(str(files("sttd").joinpath("sample.wav"))) as file:
        return bytes(file.readframes(file.getnframes()))


class Calls:
    """Blocking calls that run now, and when each should have ended: a slow machine is not a stuck one."""

    def __init__(self) -> None:
        self._due: dict[object, float] = {}
        self.slowness = 1.0
        """How many times as long the limits are as on a machine that decodes much faster than people speak."""

    def warm_up(self, audio_s: float, call: Callable[[], T]) -> T:
        """`call()`, from which is learned how fast this machine is."""
        started = time.monotonic()
        result = call()
        self.slowness = max(1.0, SLOWER_THAN_SAMPLE * (time.monotonic() - started) / audio_s)
        return result

    def timed(self, audio_s: float, call: Callable[[], T]) -> T:
        """`call()`, in the thread of whoever calls this; it has three times as long as the audio, and ten seconds."""
        key = object()
        self._due[key] = time.monotonic() + self.slowness * (3 * audio_s + 10)
        try:
            return call()
        finally:
            del self._due[key]

    def overdue_s(self) -> float:
        """By how much the worst of them is past its time; negative where none is."""
        return time.monotonic() - min(self._due.copy().values(), default=math.inf)


class Engine(ABC):
    """A provider's model in memory, shared by all sessions. Calls block and may come from several threads."""

    name: ClassVar[str]
    extra: ClassVar[str]
    """The optional dependency of the package `sttd` that brings the engine's library."""
    library: ClassVar[str]
    """The module that must be importable."""
    streaming: ClassVar[bool]
    """Streaming engines give decoders and find endpoints themselves; the others take whole utterances."""
    takes_phrases: ClassVar[bool] = False
    """Whether a session may say which phrases it expects."""

    def __init__(self, config: Config, model: Path, languages: Sequence[str] = ()) -> None:
        """`languages` are those that the model understands; none: not known."""
        self.config = config
        self.model = model
        self.languages = tuple(languages)
        self.calls = Calls()

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many calls may run at once."""

    @property
    def decoders(self) -> int:
        """How many decoders of a streaming engine may be in use at once."""
        return self.workers

    @property
    def spare_wanted(self) -> bool:
        """Whether `prepare_spare` would save an utterance to come some time."""
        return False

    def prepare_spare(self) -> None:
        """Make a decoder ready that is not wanted yet."""
        return

    @abstractmethod
    def load(self) -> None:
        """Load the model and decode something with it; ModelError with the details if that fails."""

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
        """The text of a whole recording or utterance; a hypothesis that may be rough unless `final`.

        `context` is what was said just before. `confidence` is the voice gate's that this is speech: the lower it is,
        the surer must the engine be of its text.
        """

    def decoder(self, options: SessionOptions) -> Decoder:  # noqa: ARG002
        """A new decoder of a streaming engine."""
        raise RecognitionError(f"{self.name} has no streaming decoder")

    def check(self, options: SessionOptions) -> Sequence[str]:
        """OptionError where a session asks for what the model cannot do; what it will do in part only."""
        language = base_language(options.language)
        if language and self.languages and language not in self.languages:
            raise OptionError(
                f"language: the model {self.model.name} does not understand {options.language!r}; "
                f"it understands {', '.join(self.languages)}"
            )
        return (f"phrases: {self.name} makes no use of them",) if options.phrases and not self.takes_phrases else ()


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


class Cloud(ABC):
    """A provider in the network. It has no model to load; audio leaves the machine."""

    name: ClassVar[str]
    title: ClassVar[str]
    """Its name as people write it."""
    library: ClassVar[str]
    """The module that must be importable; the extra that brings it has the provider's name."""
    streaming: ClassVar[bool]
    takes_phrases: ClassVar[bool] = False

    model = ""
    destination = ""
    """The host that audio is sent to."""
    problem = ""
    """Why it cannot be used at all, as it is set up; for clients."""

    @abstractmethod
    def __init__(self, config: Config) -> None:
        """ConfigError where there is no API key."""

    @abstractmethod
    def recognizer(self, options: SessionOptions, backstop: Backstop) -> AbstractAsyncContextManager[CloudRecognizer]:
        """A recognizer for one session."""

    def check(self, options: SessionOptions) -> Sequence[str]:
        """What the provider will do in part only."""
        return (f"phrases: {self.name} makes no use of them",) if options.phrases and not self.takes_phrases else ()

    def state(self) -> dict[str, float]:
        """What is left of the account's limits, as far as it is known here."""
        return {}

    async def aclose(self) -> None:
        """Close what is kept open between sessions."""
        return


def cloud_failure(name: str, error: Exception) -> CloudError:
    """What went wrong on the way to a cloud, whatever it is: the cloud's failure, and no end of a session."""
    if isinstance(error, CloudError):
        return error
    logger.error("%s: a fault that nobody expected", name, exc_info=error)
    return CloudError(f"{name} cannot be used ({type(error).__name__})")


def base_language(tag: str) -> str:
    """`en` for `en`, `en-US` and `en_us`."""
    return tag.replace("_", "-").split("-", 1)[0].lower()


def printable(text: str) -> str:
    """A text from a peer's JSON, in which there may be half of a surrogate pair, which no message can carry on."""
    return text.encode(errors="replace").decode().strip()


def finite(value: str | float) -> float:
    """A number from a peer's JSON, in which Python's parser lets NaN and Infinity through; ValueError for these."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"not a finite number: {number}")
    return number


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
