"""The faster_whisper engine: Whisper on CTranslate2, which decodes whole utterances."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
from dataclasses import replace
from functools import partial
from itertools import islice, starmap
from typing import TYPE_CHECKING, Any, ClassVar

from sttd.audio.format import RATE, seconds
from sttd.engines import languages
from sttd.engines.base import BatchEngine, Transcript, base_language, sample
from sttd.errors import ModelError
from sttd.events import Word

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sttd.config.config import SessionOptions

UNSURE = -0.45
"""Mean log probability under which audio is decoded again, in the whole window instead of a short one."""

TIMED_S, TIMED_IF_NOT_LIVE_S = 20.0, 6.0
"""Longer audio is decoded with timestamps. Without them the model may stop at a pause and pass over all words behind
it; with them the decoding goes on from there, but takes twice as long (bench/uploads.py)."""

MARGIN_S = 3.0
MIN_WINDOW_S, MIN_WINDOW_OF_TINY_S, TINY = 15.0, 12.0, 384
"""In shorter windows a model repeats itself. `tiny`, which has an encoder of width TINY, works in shorter windows than
the other models."""

TOKENS = 20
TOKENS_A_SECOND = 12
"""No language is spoken with more tokens than TOKENS + TOKENS_A_SECOND * seconds; a longer text repeats itself."""

M_ARENA_MAX = -8
"""The constant of <malloc.h>."""

TEMPERATURES = (0.0, 0.2, 0.4)
MIN_BYTES = RATE // 10 * 2  # less than a tenth of a second holds no word


class FasterWhisperEngine(BatchEngine):
    """A Whisper model in CTranslate2's format."""

    name: ClassVar[str] = "faster_whisper"
    extra: ClassVar[str] = "faster-whisper"
    library: ClassVar[str] = "faster_whisper"
    usual_languages: ClassVar[Sequence[str]] = languages.WHISPER

    whole: Any = None
    fitted: Any = None

    @property
    def workers(self) -> int:
        """See Engine. By default two if there are two cores: for several sessions faster than one with all threads."""
        return self.config.faster_whisper.workers or min(2, len(os.sched_getaffinity(0)))

    @property
    def threads(self) -> int:
        """Number of threads of each worker."""
        cores = len(os.sched_getaffinity(0))
        return self.config.faster_whisper.threads or max(1, min(4, cores // self.workers))

    @property
    def partial_interval_s(self) -> float:
        """See BatchEngine."""
        return self.config.faster_whisper.partial_interval_ms / 1000

    def load(self) -> None:
        """See Engine. Some faults appear only in the first decoding (see docs/operations.md)."""
        import numpy as np

        from sttd.engines.fitted import FittedWhisper

        if "MALLOC_ARENA_MAX" not in os.environ:
            _limit_arenas(self.workers)
        logging.getLogger("faster_whisper").setLevel(logging.WARNING)
        settings = self.config.faster_whisper
        missing = [name for name in ("config.json", "model.bin", "tokenizer.json") if not (self.model / name).is_file()]
        if missing:
            raise ModelError(f"the Whisper model in {self.model} does not load: no {', '.join(missing)}")
        try:
            self.whole = FittedWhisper(
                str(self.model),
                device=settings.device,
                compute_type=settings.compute_type,
                cpu_threads=self.threads,
                num_workers=self.workers,
                local_files_only=True,
            )
            self.languages = tuple(self.whole.supported_languages)
            self.translates = bool(self.whole.model.is_multilingual)
            bands = self.whole.feature_extractor.mel_filters.shape[0]
            units = self.whole.encode(np.zeros((bands, 1000), np.float32)).shape[-1]
            self.fitted = self.whole.fitted(MARGIN_S, MIN_WINDOW_OF_TINY_S if units == TINY else MIN_WINDOW_S)
            spoken = sample()
            self.calls.warm_up(seconds(spoken), partial(self._decode, spoken, language="en", words=False, final=True))
        except Exception as error:
            raise ModelError(f"the Whisper model in {self.model} does not load: {error}") from error

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
        """See BatchEngine. Segments that Whisper made up from silence, noise or repetition are left out."""
        if len(pcm) < MIN_BYTES:
            return Transcript("")
        language = base_language(options.language) or None
        words = options.words and final
        task = "translate" if options.translate else "transcribe"
        context = context or options.prompt
        timed_s = TIMED_S if live else TIMED_IF_NOT_LIVE_S
        return self._decode(
            pcm,
            language=language,
            task=task,
            words=words,
            final=final,
            timed=final and seconds(pcm) > timed_s,
            context=context,
            confidence=confidence,
        )

    def _decode(
        self,
        pcm: bytes,
        *,
        language: str | None,
        task: str = "transcribe",
        words: bool,
        final: bool,
        timed: bool = False,
        context: str = "",
        confidence: float = 1.0,
    ) -> Transcript:
        import numpy as np

        from sttd.engines.evidence import COMPRESSION, loops, words_spoken

        def run_away() -> bool:
            return sum(len(segment.tokens) for segment in segments) >= most or any(starmap(loops, heard()))

        def heard() -> Sequence[tuple[Any, Any]]:
            """Return each segment with its audio. A single segment has all of it, also what its end time leaves out."""
            if len(segments) == 1:
                return [(segments[0], audio)]
            return [(each, audio[int(each.start * RATE) : int(each.end * RATE)]) for each in segments]

        audio = np.multiply(np.frombuffer(pcm, np.int16), 1 / 32768, dtype=np.float32)
        length = len(audio) / RATE
        decode = partial(
            self._segments,
            audio,
            language=language,
            task=task,
            timed=timed,
            beam_size=self.config.faster_whisper.beam_size if final else 1,
            word_timestamps=words,
        )
        segments: list[Any] = []
        heard_in = ""
        compression: float | None = COMPRESSION
        most = int(TOKENS + TOKENS_A_SECOND * length)
        short = self.fitted.shortens(length)
        if short:
            # Without the library's own thresholds, which would silently drop text that the second try may get right.
            segments, heard_in = decode(
                self.fitted,
                temperature=0.0,
                max_new_tokens=most,
                no_speech_threshold=None,
                compression_ratio_threshold=None,
            )
            astray = run_away()
            if any(segment.compression_ratio > COMPRESSION for segment in segments) and not astray:
                compression = None  # the audio supports the repetition, so higher temperatures are not tried
            if not final:
                segments = [] if astray else segments
            elif astray or any(segment.avg_logprob < UNSURE for segment in segments):
                short = False
        if not short:
            # The prompt is used only here: in a short window the decoder continues the prompt instead of the audio.
            segments, heard_in = decode(
                self.whole,
                temperature=TEMPERATURES if final else 0.0,
                initial_prompt=context or None,
                compression_ratio_threshold=compression,
            )
        return _transcript([(each, words_spoken(each, own, confidence)) for each, own in heard()], heard_in)

    @staticmethod
    def _segments(audio: Any, model: Any, *, timed: bool, **options: Any) -> tuple[list[Any], str]:
        """Return the segments, and the language."""
        from faster_whisper.transcribe import get_compression_ratio

        timed = timed or not model.is_one_window(len(audio) / RATE)  # timestamps lead from window to window
        found, info = model.transcribe(audio, condition_on_previous_text=False, without_timestamps=not timed, **options)
        if not timed:
            # With word times the library would also decode the silence after the last word, and make up text for it.
            return list(islice(found, 1)), info.language
        # The library's ratio is that of the whole window: a loop beside it would make any sentence a loop.
        return [replace(each, compression_ratio=get_compression_ratio(each.text)) for each in found], info.language


def _limit_arenas(number: int) -> None:
    """Limit glibc to `number` heaps: else each thread gets a heap, which keeps freed buffers (`bench/allocator.py`)."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, number)


def _first(words: Sequence[Any], count: int) -> Iterator[Any]:
    """Yield the library's words that make up the first `count` words of the text, where spaces separate words.

    The library parts `1,0001.` into two words, and Chinese, which has no spaces, into many.
    """
    begun = 0
    for place, word in enumerate(words):
        begun += place == 0 or word.word.startswith(" ")
        if begun > count:
            return
        yield word


def _transcript(segments: Sequence[tuple[Any, int]], language: str) -> Transcript:
    """Return the transcript of segments, each with the number of its first words that count."""
    from sttd.engines.evidence import tentative

    texts = [" ".join(segment.text.split()[:spoken]) for segment, spoken in segments]
    return Transcript(
        " ".join(text for text in texts if text),
        tuple(
            Word(word.word.strip(), round(word.start, 3), round(word.end, 3), round(word.probability, 3))
            for segment, spoken in segments
            for word in _first(segment.words or (), spoken)
        ),
        any(spoken and tentative(segment) for segment, spoken in segments),
        language,
    )
