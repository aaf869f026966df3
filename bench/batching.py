"""Whether decoding several waiting utterances in one call is faster than one after the other."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.corpus import Missing, optional
from bench.load import turns
from bench.report import Section, machine, table
from bench.servers import store
from sttd.audio.format import RATE
from sttd.engines.whisper import MIN_WINDOW_OF_TINY_S, MIN_WINDOW_S

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from bench.load import Turn

WINDOWS = {"tiny.en": MIN_WINDOW_OF_TINY_S, "base": MIN_WINDOW_S}
SHAPES = ((1, 2), (2, 1))
BATCHES = (1, 2, 4, 8)
WAITING, ROUNDS = 16, 3


def run(*, full: bool) -> Section:
    rows = []
    for model in WINDOWS if full else ("tiny.en",):
        folder = Path(store()) / "faster_whisper" / model
        if optional("faster_whisper") is None or not folder.exists():
            raise Missing(f"faster-whisper or the model {model}")
        for threads, workers in SHAPES:
            times = [f"{1000 * each:.0f}" for each in of_shape(folder, WINDOWS[model], threads, workers)]
            rows.append([model, f"{workers} of {threads} thread{'s' * (threads > 1)}", *times])
    text = f"""{machine("faster-whisper", "ctranslate2")}.

{WAITING} utterances of 2 to 5 s wait at once; ms an utterance (median of {ROUNDS}), with so many in one call. Beam 5.

{table(["model", "workers", *(f"{size} a call" for size in BATCHES)], rows)}"""
    return Section("batching", "Several utterances in one call of Whisper", text)


def of_shape(folder: Path, window_s: float, threads: int, workers: int) -> list[float]:
    from faster_whisper import WhisperModel

    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=threads, num_workers=workers)
    features = [spectrogram(model, turn, window_s) for turn in turns("en", 2, 5)[:WAITING]]
    decode = decoder(model)
    decode(features[:1])
    rounds = [[of_batches(decode, features, size, workers) for size in BATCHES] for _ in range(ROUNDS)]
    return [median(times) for times in zip(*rounds, strict=True)]


def spectrogram(model: Any, turn: Turn, window_s: float) -> NDArray[np.float32]:
    pcm = np.frombuffer(turn.pcm, np.int16)[: int(turn.speech_end * RATE) + RATE // 2] / np.float32(32768)
    padded = np.pad(pcm, (0, int(window_s * RATE) - len(pcm)))
    return np.asarray(model.feature_extractor(padded)[:, : int(window_s * 100)], np.float32)


def decoder(model: Any) -> Callable[[Sequence[NDArray[np.float32]]], None]:
    import ctranslate2
    from faster_whisper.tokenizer import Tokenizer

    tokenizer = Tokenizer(model.hf_tokenizer, model.model.is_multilingual, task="transcribe", language="en")
    prompt = model.get_prompt(tokenizer, [], without_timestamps=True)

    def decode(features: Sequence[NDArray[np.float32]]) -> None:
        encoded = model.model.encode(ctranslate2.StorageView.from_array(np.ascontiguousarray(np.stack(features))))
        model.model.generate(encoded, [prompt] * len(features), beam_size=5, max_length=80)

    return decode


def of_batches(decode: Callable[[Any], None], features: Sequence[Any], size: int, workers: int) -> float:
    """Seconds an utterance, with a thread for each worker."""
    waiting: SimpleQueue[Sequence[Any] | None] = SimpleQueue()
    for at in range(0, len(features), size):
        waiting.put(features[at : at + size])

    def work() -> None:
        while (batch := waiting.get()) is not None:
            decode(batch)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for _ in threads:
        waiting.put(None)
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - started) / len(features)
