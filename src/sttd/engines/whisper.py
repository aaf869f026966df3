"""The faster_whisper engine: Whisper on CTranslate2, a whole utterance at a time."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from sttd.audio.format import RATE, seconds
from sttd.engines.base import BatchEngine, Transcript, base_language, sample
from sttd.errors import ModelError
from sttd.events import Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sttd.config.config import SessionOptions

UNSURE = -0.45
"""Mean log probability under which what was found in a short window is tried again in the whole one."""

MARGIN_S = 3.0
LEAST_S, LEAST_OF_TINY_S, TINY = 15.0, 12.0, 384
"""Shorter windows make a model repeat itself; `tiny`, known by its encoder's width, bears shorter ones than others."""

TOKENS = 20
TOKENS_A_SECOND = 12
"""No language is spoken faster than this; a text of more tokens repeats itself."""

M_ARENA_MAX = -8
"""As <malloc.h> has it."""

TEMPERATURES = (0.0, 0.2, 0.4)
SHORTEST = RATE // 10 * 2  # bytes; less than a tenth of a second holds no word, and pads to nothing but noise


class FasterWhisperEngine(BatchEngine):
    """A Whisper model in CTranslate2's format."""

    name: ClassVar[str] = "faster_whisper"
    extra: ClassVar[str] = "faster-whisper"
    library: ClassVar[str] = "faster_whisper"

    whole: Any = None
    fitted: Any = None

    @property
    def workers(self) -> int:
        """Two where there are two cores: for several sessions that beats one decoder with all the threads."""
        return self.config.faster_whisper.workers or min(2, len(os.sched_getaffinity(0)))

    @property
    def threads(self) -> int:
        """Threads of each worker."""
        cores = len(os.sched_getaffinity(0))
        return self.config.faster_whisper.threads or max(1, min(4, cores // self.workers))

    @property
    def partial_interval_s(self) -> float:
        """See BatchEngine."""
        return self.config.faster_whisper.partial_interval_ms / 1000

    def load(self) -> None:
        """Load the model and decode a sentence: some faults show only then (see docs/operations.md)."""
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
            bands = self.whole.feature_extractor.mel_filters.shape[0]
            units = self.whole.encode(np.zeros((bands, 1000), np.float32)).shape[-1]
            self.fitted = self.whole.fitted(MARGIN_S, LEAST_OF_TINY_S if units == TINY else LEAST_S)
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
        context: str = "",
        confidence: float = 1.0,
    ) -> Transcript:
        """Decode; segments that Whisper made up from silence, noise or its own repetition are left out."""
        if len(pcm) < SHORTEST:
            return Transcript("")
        language = base_language(options.language) or None
        words = options.words and final
        return self._decode(pcm, language=language, words=words, final=final, context=context, confidence=confidence)

    def _decode(
        self,
        pcm: bytes,
        *,
        language: str | None,
        words: bool,
        final: bool,
        context: str = "",
        confidence: float = 1.0,
    ) -> Transcript:
        import numpy as np

        from sttd.engines.evidence import COMPRESSION, loops, words_spoken

        def runs_away(segment: Any) -> bool:
            return len(segment.tokens) >= most or loops(segment, audio)

        audio = np.multiply(np.frombuffer(pcm, np.int16), 1 / 32768, dtype=np.float32)
        length = len(audio) / RATE
        decode = partial(
            self._segments,
            audio,
            language=language,
            beam_size=self.config.faster_whisper.beam_size if final else 1,
            word_timestamps=words,
        )
        segments: list[Any] = []
        compression: float | None = COMPRESSION
        most = int(TOKENS + TOKENS_A_SECOND * length)
        short = self.fitted.shortens(length)
        if short:
            # The library would leave out without a word what a second try might understand.
            segments = decode(
                self.fitted,
                temperature=0.0,
                max_new_tokens=most,
                no_speech_threshold=None,
                compression_ratio_threshold=None,
            )
            if not final:
                segments = [segment for segment in segments if not runs_away(segment)]
            elif any(runs_away(segment) or segment.avg_logprob < UNSURE for segment in segments):
                short = False
            if any(segment.compression_ratio > COMPRESSION and not runs_away(segment) for segment in segments):
                compression = None  # a repetition that the audio bears out needs no second try
        if not short:
            # In a short window the decoder runs on with what it was told was said before.
            segments = decode(
                self.whole,
                temperature=TEMPERATURES if final else 0.0,
                initial_prompt=context or None,
                compression_ratio_threshold=compression,
            )
        return _transcript([(segment, words_spoken(segment, audio, confidence)) for segment in segments])

    @staticmethod
    def _segments(audio: Any, model: Any, **options: Any) -> list[Any]:
        one_window = model.is_one_window(len(audio) / RATE)
        found, _info = model.transcribe(
            audio,
            condition_on_previous_text=False,
            # Timestamps only cost time in one window; a longer recording needs them to go from window to window.
            without_timestamps=one_window,
            **options,
        )
        # With word times the library would decode the silence after the last word once more, and make up text for it.
        return list(islice(found, 1) if one_window else found)


def _limit_arenas(number: int) -> None:
    """Keep glibc from giving each thread a heap of its own, where the encoder's buffers stay (`bench/allocator.py`)."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, number)


def _transcript(segments: Sequence[tuple[Any, int]]) -> Transcript:
    """Of the first so many words of each segment."""
    from sttd.engines.evidence import tentative

    texts = [" ".join(segment.text.split()[:spoken]) for segment, spoken in segments]
    return Transcript(
        " ".join(text for text in texts if text),
        tuple(
            Word(word.word.strip(), round(word.start, 3), round(word.end, 3), round(word.probability, 3))
            for segment, spoken in segments
            for word in (segment.words or ())[:spoken]
        ),
        any(spoken and tentative(segment) for segment, spoken in segments),
    )
