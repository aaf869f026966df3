"""Recognizers that sessions take turns with: what one has said never shows in another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from sttd.config.config import Config, SessionOptions, VoskConfig
from sttd.engines.vosk import Pool, VoskEngine
from tests.support import SHARED_SPEECH, Clip, at_16k_mono, pieces

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sttd.engines.base import Decoder, Transcript

    Utterances = list[tuple[str, list[tuple[str, float, float]]]]

WORDS = SessionOptions(words=True)


@pytest.fixture(scope="module")
def engine(still_models: Path) -> VoskEngine:
    engine = VoskEngine(Config(provider="vosk", vosk=VoskConfig(workers=1)), still_models / "vosk/vosk-small-ko", ())
    engine.load()
    return engine


def decoded(decoder: Decoder, pcm: bytes) -> list[Transcript]:
    found = [decoder.accept(piece, partial=False) for piece in pieces(pcm)]
    return [one.transcript for one in found if one] + [decoder.finish()]


@pytest.fixture(scope="module")
def by_a_fresh_recognizer(engine: VoskEngine, korean: list[Clip]) -> list[Utterances]:
    """Of each of some recordings."""
    import vosk

    def said(clip: Clip) -> Utterances:
        recognizer = vosk.KaldiRecognizer(engine._model, 16000)
        recognizer.SetWords(True)
        found = [recognizer.Result() for piece in pieces(at_16k_mono(clip)) if recognizer.AcceptWaveform(piece)]
        return [as_sttd_says_it(json.loads(one)) for one in (*found, recognizer.FinalResult())]

    return [said(clip) for clip in korean[:7]]


def as_sttd_says_it(one: dict[str, Any]) -> tuple[str, list[tuple[str, float, float]]]:
    words = one.get("result", ())
    return one["text"], [(word["word"], round(word["start"], 3), round(word["end"], 3)) for word in words]


def as_vosk_says_it(found: Sequence[Transcript]) -> Utterances:
    return [(one.text, [(word.word, word.start, word.end) for word in one.words]) for one in found]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("left", ["finished", "in mid-utterance", "after vosk's own endpoint"])
def test_a_borrowed_recognizer_is_as_good_as_a_fresh_one(
    engine: VoskEngine, korean: list[Clip], by_a_fresh_recognizer: list[Utterances], left: str
) -> None:
    """Words and times to the letter, however the session before it left the recognizer."""
    endpoints = 0
    for before, clip, fresh in zip(korean[1:], korean, by_a_fresh_recognizer, strict=False):
        decoder = engine.decoder(WORDS)
        heard = at_16k_mono(before)
        if left == "finished":
            decoded(decoder, heard)
        elif left == "in mid-utterance":
            decoder.accept(heard[: len(heard) // 2], partial=True)
        else:
            for piece in pieces(heard + bytes(5 * 32000)):
                if decoder.accept(piece, partial=False):
                    endpoints += 1
                    break
        decoder.close()

        pcm = at_16k_mono(clip)
        decoder = engine.decoder(WORDS)
        ours = as_vosk_says_it(decoded(decoder, pcm))
        decoder.close()
        assert ours == fresh, clip.name
    assert engine._pool._made == 1, "it was always the same recognizer"
    assert left != "after vosk's own endpoint" or endpoints > (3 if SHARED_SPEECH.exists() else 0)


def test_what_cannot_be_made_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr("vosk.KaldiRecognizer", fail)
    pool = Pool(object(), 1)
    for attempt in (pool.borrow, pool.warm):
        with pytest.raises(MemoryError):
            attempt()
        assert pool.low, "there may still be one"


def test_a_recognizer_that_failed_is_not_lent_again(engine: VoskEngine) -> None:
    decoder = engine.decoder(WORDS)
    with pytest.raises(TypeError):
        decoder.accept(None, partial=False)  # type: ignore[arg-type]
    decoder.close()
    assert engine.spare_wanted, "the only one is gone"
    engine.prepare_spare()
    assert not engine.spare_wanted
