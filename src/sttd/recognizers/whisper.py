"""The faster_whisper engine: Whisper on CTranslate2, a whole utterance at a time."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from sttd.audio.format import RATE
from sttd.errors import ModelError
from sttd.events import Word
from sttd.recognizers.base import Engine, Transcript, base_language

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sttd.config import SessionOptions

# Silence, noise and music make Whisper write what it has read most. Beyond the thresholds of its own decoder
# (openai/whisper, transcribe.py) a segment is dropped where the model doubts both that there is speech and what was
# said; (no-speech probability over, mean log probability under), chosen on recordings of speech and of noise.
DOUBTS = ((0.6, -0.8), (0.4, -1.1))
COMPRESSION = 2.4
UNSURE = -0.45
"""Mean log probability under which what was found in a short window is tried again in the whole one."""

WHOLE_S = 30.0
"""The window that Whisper was trained with."""

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


class FasterWhisperEngine(Engine):
    """A Whisper model in CTranslate2's format."""

    name: ClassVar[str] = "faster_whisper"
    extra: ClassVar[str] = "faster-whisper"
    library: ClassVar[str] = "faster_whisper"
    streaming: ClassVar[bool] = False

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

    def load(self) -> None:
        """Load the model and decode a second of silence: some faults show only then (see docs/operations.md)."""
        import numpy as np

        from sttd.recognizers.fitted import FittedWhisper

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
            self._decode(bytes(RATE * 2), language="en", words=False, final=False)
        except Exception as error:
            raise ModelError(f"the Whisper model in {self.model} does not load: {error}") from error

    def transcribe(self, pcm: bytes, options: SessionOptions, *, final: bool = True, context: str = "") -> Transcript:
        """Decode; segments that Whisper made up from silence, noise or its own repetition are left out."""
        if len(pcm) < SHORTEST:
            return Transcript("")
        language = base_language(options.language) or None
        return self._decode(pcm, language=language, words=options.words, final=final, context=context)

    def _decode(self, pcm: bytes, *, language: str | None, words: bool, final: bool, context: str = "") -> Transcript:
        import numpy as np

        audio = np.multiply(np.frombuffer(pcm, np.int16), 1 / 32768, dtype=np.float32)
        length = len(audio) / RATE
        decode = partial(
            self._segments,
            audio,
            language=language,
            beam_size=self.config.faster_whisper.beam_size if final else 1,
            word_timestamps=words and final,
        )
        segments: list[Any] = []
        short = self.fitted.window(length) < WHOLE_S
        if short:
            most = int(TOKENS + TOKENS_A_SECOND * length)
            # The library would leave out without a word what a second try might understand.
            segments = decode(self.fitted, temperature=0.0, max_new_tokens=most, no_speech_threshold=None)
            if not final:
                segments = [segment for segment in segments if not _runs_away(segment, most)]
            elif any(_runs_away(segment, most) or segment.avg_logprob < UNSURE for segment in segments):
                short = False
        if not short:
            # In a short window the decoder runs on with what it was told was said before.
            segments = decode(self.whole, temperature=TEMPERATURES if final else 0.0, initial_prompt=context or None)
        return _transcript([segment for segment in segments if _is_speech(segment)])

    @staticmethod
    def _segments(audio: Any, model: Any, **options: Any) -> list[Any]:
        one_window = len(audio) <= WHOLE_S * RATE
        found, _info = model.transcribe(
            audio,
            condition_on_previous_text=False,
            compression_ratio_threshold=COMPRESSION,
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


def _transcript(segments: Sequence[Any]) -> Transcript:
    return Transcript(
        " ".join(segment.text.strip() for segment in segments).strip(),
        tuple(
            Word(word.word.strip(), round(word.start, 3), round(word.end, 3), round(word.probability, 3))
            for segment in segments
            for word in segment.words or ()
        ),
    )


def _runs_away(segment: Any, most: int) -> bool:
    return bool(segment.compression_ratio > COMPRESSION or len(segment.tokens) >= most)


def _is_speech(segment: Any) -> bool:
    if segment.compression_ratio > COMPRESSION:
        return False
    return not any(segment.no_speech_prob > over and segment.avg_logprob < under for over, under in DOUBTS)
