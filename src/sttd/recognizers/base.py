"""The shapes of recognition: the documented interface, engines (one model, blocking calls), session recognizers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sttd.errors import OptionError, RecognitionError
from sttd.events import Event, Word

if TYPE_CHECKING:
    from pathlib import Path

    from sttd.config import Config, SessionOptions

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


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What a streaming decoder says after a piece of audio; `final` closes an utterance."""

    transcript: Transcript
    final: bool


class Decoder(ABC):
    """One session's decoder in a streaming engine. Blocking calls, from one thread at a time.

    Word times count from the first audio that the decoder was ever given.
    """

    @abstractmethod
    def accept(self, pcm: bytes, *, partial: bool) -> Hypothesis | None:
        """Take audio; a final where the engine found an endpoint of its own, else a partial if asked for."""

    @abstractmethod
    def finish(self) -> Transcript:
        """End the utterance; the decoder is ready for the next."""


class Engine(ABC):
    """A provider's model in memory, shared by all sessions. Calls block and may come from several threads."""

    name: ClassVar[str]
    extra: ClassVar[str]
    """The optional dependency of the package `sttd` that brings the engine's library."""
    library: ClassVar[str]
    """The module that must be importable."""
    streaming: ClassVar[bool]
    """Streaming engines give decoders and find endpoints themselves; the others take whole utterances."""

    def __init__(self, config: Config, model: Path, languages: Sequence[str] = ()) -> None:
        """`languages` are those that the model understands; none: not known."""
        self.config = config
        self.model = model
        self.languages = tuple(languages)

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many calls may run at once."""

    @abstractmethod
    def load(self) -> None:
        """Load the model and decode something with it; ModelError with the details if that fails."""

    @abstractmethod
    def transcribe(self, pcm: bytes, options: SessionOptions, *, final: bool = True, context: str = "") -> Transcript:
        """The text of a whole recording or utterance; a hypothesis that may be rough unless `final`.

        `context` is what was said just before.
        """

    def decoder(self, options: SessionOptions) -> Decoder:  # noqa: ARG002
        """A new decoder of a streaming engine."""
        raise RecognitionError(f"{self.name} has no streaming decoder")

    def check(self, options: SessionOptions) -> None:
        """OptionError where a session asks for what the model cannot do."""
        language = base_language(options.language)
        if language and self.languages and language not in self.languages:
            raise OptionError(
                f"language: the model {self.model.name} does not understand {options.language!r}; "
                f"it understands {', '.join(self.languages)}"
            )


class Recognizer(ABC):
    """One session's recognizer, as the session sees it: told of utterances, it emits partials and finals."""

    @abstractmethod
    async def start(self, at: float) -> None:
        """An utterance begins `at` seconds after the stream's start."""

    @abstractmethod
    async def accept(self, pieces: Sequence[bytes]) -> None:
        """Audio of the utterance, in the pieces in which it came."""

    async def pause(self) -> None:
        """The utterance may be over, and what was accepted be all of it. If not, more is accepted."""
        return

    @abstractmethod
    async def finish(self) -> None:
        """The utterance is over: emit its final if there is text."""


def base_language(tag: str) -> str:
    """`en` for `en`, `en-US` and `en_us`."""
    return tag.replace("_", "-").split("-", 1)[0].lower()
