"""Uploaded recordings of minutes against the library on the whole file: the words, and when they were said."""

from __future__ import annotations

import io
import json
import re
import wave
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

import httpx2
import jiwer
import numpy as np
import pytest

from tests.reliability.figures import figure
from tests.support import Clip, Daemon, at_16k_mono, normalized, running_daemon, shared_clips

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

pytestmark = pytest.mark.reliability

TEN_MINUTES = 600 * 32000
AS_GOOD = 0.005
"""Greatest difference of word error rates."""

Timed = tuple[str, float]
"""A word, and the second at which it begins."""


def transcribed(daemon: Daemon, pcm: bytes) -> tuple[str, list[Timed]]:
    """The text of a recording; and its words, with their times."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        out.writeframes(pcm)
    answer = httpx2.post(
        f"http://{daemon.address}/v1/audio/transcriptions",
        files={"file": file.getvalue()},
        data={"response_format": "verbose_json", "timestamp_granularities[]": "word"},
        timeout=600,
    ).json()
    return answer["text"], [(word["word"], word["start"]) for word in answer["words"]]


def by_whisper(models: Path, pcm: bytes) -> tuple[str, list[Timed]]:
    """The text as the library gives it by default; and words with their times, from a second call."""
    from faster_whisper import WhisperModel

    model = WhisperModel(str(models / "faster_whisper/tiny.en"), device="cpu", compute_type="int8")
    audio = np.frombuffer(pcm, np.int16).astype(np.float32) / 32768
    text = " ".join(segment.text for segment in model.transcribe(audio)[0])
    timed = model.transcribe(audio, word_timestamps=True)[0]
    return text, [(word.word, word.start) for segment in timed for word in segment.words or ()]


def by_vosk(models: Path, pcm: bytes) -> tuple[str, list[Timed]]:
    import vosk

    vosk.SetLogLevel(-1)
    recognizer = vosk.KaldiRecognizer(vosk.Model(str(next((models / "vosk").iterdir()))), 16000)
    recognizer.SetWords(True)
    pieces = [pcm[start : start + 8000] for start in range(0, len(pcm), 8000)]
    results = [json.loads(recognizer.Result()) for piece in pieces if recognizer.AcceptWaveform(piece)]
    results.append(json.loads(recognizer.FinalResult()))
    words = [(word["word"], word["start"]) for result in results for word in result.get("result", ())]
    return " ".join(result["text"] for result in results), words


def joined(clips: Sequence[Clip]) -> tuple[bytes, str]:
    """Ten minutes of recordings, or all that there are, with half a second between them; and what is said."""
    pcm, said = b"", []
    for clip in clips:
        pcm += at_16k_mono(clip) + bytes(16000)
        said.append(normalized(clip.transcript))
        if len(pcm) >= TEN_MINUTES:
            break
    return pcm, " ".join(said)


def shifts(ours: Sequence[Timed], theirs: Sequence[Timed]) -> list[float]:
    """The differences, in seconds, of the times of the words that both have found."""
    names = [[re.sub(r"\W", "", word).lower() for word, _ in words] for words in (ours, theirs)]
    blocks = SequenceMatcher(None, names[0], names[1], autojunk=False).get_matching_blocks()
    return [abs(ours[a + n][1] - theirs[b + n][1]) for a, b, size in blocks for n in range(size)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", ["two_cities", "ten minutes", "ten minutes of Korean by vosk"])
def test_an_upload_is_as_good_as_the_library(
    what: str, models: Path, still_models: Path, two_cities: Clip, korean: list[Clip]
) -> None:
    theirs: Callable[[Path, bytes], tuple[str, list[Timed]]] = by_whisper
    store, options = models, ("--provider", "faster_whisper")
    if what == "two_cities":
        pcm, said = at_16k_mono(two_cities), normalized(two_cities.transcript)
    elif what == "ten minutes":
        if not shared_clips("en/"):
            pytest.skip("../shared/speech is missing")
        pcm, said = joined(shared_clips("en/"))
    else:
        pcm, said = joined(korean)
        store, options, theirs = still_models, ("--provider", "vosk"), by_vosk
    with running_daemon(store, *options) as daemon:
        text, words = transcribed(daemon, pcm)
    other, timed = theirs(store, pcm)
    # Who writes Korean parts words at will.
    rate = jiwer.cer if "Korean" in what else jiwer.wer
    ours, library = (rate(said, normalized(found)) for found in (text, other))
    apart = shifts(words, timed)
    figure(
        what,
        f"error rate {ours:.4f}, the library {library:.4f}; "
        f"{len(apart)} words begin {np.median(apart):.2f} s apart (median), {np.percentile(apart, 95):.2f} s (p95)",
    )
    assert ours <= library + AS_GOOD
    assert np.median(apart) < 0.2
