"""The faster_whisper engine: Whisper on CTranslate2, a whole utterance at a time."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, ClassVar

from sttd.audio.format import RATE
from sttd.errors import ModelError
from sttd.events import Word
from sttd.recognizers.base import Engine, Transcript, base_language

if TYPE_CHECKING:
    from sttd.config import SessionOptions

# Silence, noise and music make Whisper write what it has read most. Beyond the thresholds of its own decoder
# (openai/whisper, transcribe.py) a segment is dropped where the model doubts both that there is speech and what was
# said; (no-speech probability over, mean log probability under), chosen on recordings of speech and of noise.
DOUBTS = ((0.6, -0.8), (0.4, -1.1))
COMPRESSION = 2.4
WINDOW_S = 30
SHORTEST = RATE // 10 * 2  # bytes; less than a tenth of a second holds no word, and pads to nothing but noise


class FasterWhisperEngine(Engine):
    """A Whisper model in CTranslate2's format."""

    name: ClassVar[str] = "faster_whisper"
    extra: ClassVar[str] = "faster-whisper"
    library: ClassVar[str] = "faster_whisper"
    streaming: ClassVar[bool] = False

    _model: Any = None

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
        from faster_whisper import WhisperModel

        logging.getLogger("faster_whisper").setLevel(logging.WARNING)
        settings = self.config.faster_whisper
        missing = [name for name in ("config.json", "model.bin", "tokenizer.json") if not (self.model / name).is_file()]
        if missing:
            raise ModelError(f"the Whisper model in {self.model} does not load: no {', '.join(missing)}")
        try:
            self._model = WhisperModel(
                str(self.model),
                device=settings.device,
                compute_type=settings.compute_type,
                cpu_threads=self.threads,
                num_workers=self.workers,
                local_files_only=True,
            )
            self.languages = tuple(self._model.supported_languages)
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

        audio = np.frombuffer(pcm, np.int16).astype(np.float32) / 32768.0
        segments, _info = self._model.transcribe(
            audio,
            language=language,
            beam_size=self.config.faster_whisper.beam_size if final else 1,
            temperature=(0.0, 0.2, 0.4) if final else 0.0,
            condition_on_previous_text=False,
            initial_prompt=context or None,
            compression_ratio_threshold=COMPRESSION,
            # Timestamps only cost time in one window; a longer recording needs them to go from window to window.
            without_timestamps=len(audio) <= WINDOW_S * RATE,
            word_timestamps=words and final,
        )
        kept = [segment for segment in segments if _is_speech(segment)]
        return Transcript(
            " ".join(segment.text.strip() for segment in kept).strip(),
            tuple(
                Word(word.word.strip(), round(word.start, 3), round(word.end, 3), round(word.probability, 3))
                for segment in kept
                for word in segment.words or ()
            ),
        )


def _is_speech(segment: Any) -> bool:
    if segment.compression_ratio > COMPRESSION:
        return False
    return not any(segment.no_speech_prob > over and segment.avg_logprob < under for over, under in DOUBTS)
