"""The vosk provider with the Korean model, through the real process."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import Clip, Daemon, at_16k_mono, finals, json_events, pieces

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def bare(still_models: Path) -> Any:
    import vosk

    vosk.SetLogLevel(-1)
    recognizer = vosk.KaldiRecognizer(vosk.Model(str(still_models / "vosk/vosk-small-ko")), 16000)
    bare_finals(recognizer, [bytes(32000)])  # its first stream is heard a little differently; sttd's have had theirs
    return recognizer


def bare_finals(recognizer: Any, stream: list[bytes]) -> list[str]:
    recognizer.Reset()
    results = [recognizer.Result() for piece in stream if recognizer.AcceptWaveform(piece)]
    results.append(recognizer.FinalResult())
    return [text for result in results if (text := json.loads(result)["text"])]


@pytest.fixture(scope="module")
def monologue(korean: list[Clip]) -> bytes:
    """Several utterances with a second of silence between them."""
    return b"".join(at_16k_mono(clip) + bytes(32000) for clip in korean[:8])


@pytest.mark.parametrize(
    "milliseconds", [100, *(pytest.param(other, marks=pytest.mark.reliability) for other in (20, 250))]
)
def test_finals_with_the_gate_off_are_those_of_a_bare_recognizer(
    vosk: Daemon, bare: Any, monologue: bytes, milliseconds: int
) -> None:
    expected = bare_finals(bare, pieces(monologue, milliseconds))
    with vosk.json(gate="off") as client:
        events = json_events(client, monologue, milliseconds)
    assert finals(events) == expected
    assert len(expected) >= 2, "there is something to compare"
    assert events[0] == {"type": "ready"}


@pytest.mark.reliability
def test_each_recording_with_the_gate_off_is_as_the_bare_recognizer_hears_it(
    vosk: Daemon, bare: Any, korean: list[Clip]
) -> None:
    for clip in korean[:6]:
        pcm = at_16k_mono(clip)
        with vosk.json(gate="off") as client:
            assert finals(json_events(client, pcm)) == bare_finals(bare, pieces(pcm))


def test_events_have_exactly_the_documented_fields(vosk: Daemon, monologue: bytes) -> None:
    with vosk.json() as client:
        events = json_events(client, monologue)
    assert {frozenset(event) for event in events} == {frozenset({"type"}), frozenset({"type", "text"})}
    assert {event["type"] for event in events} == {"ready", "partial", "final"}
    partials = [event["text"] for event in events if event["type"] == "partial"]
    assert all(partials), "an empty hypothesis says nothing"
    assert all(a != b for a, b in pairwise(partials)), "a partial is not repeated"


def test_partials_can_be_turned_off(vosk: Daemon, monologue: bytes) -> None:
    with vosk.json(partials=0) as client:
        assert {event["type"] for event in json_events(client, monologue)} == {"ready", "final"}


def test_words_have_stream_times_and_confidences(vosk: Daemon, korean: list[Clip]) -> None:
    pcm = at_16k_mono(korean[0])
    gap = bytes(3 * 32000)
    with vosk.json(words=1) as client:
        events = [event for event in json_events(client, pcm + gap + pcm) if event["type"] == "final"]
    words = [word for event in events for word in event["words"]]
    second = len(pcm) / 32000 + 3
    assert [word["word"] for word in words] == " ".join(event["text"] for event in events).split()
    assert words[0]["start"] < second
    assert second - 0.1 <= words[-1]["end"] <= second + len(pcm) / 32000 + 0.5
    assert all(0 <= word["confidence"] <= 1 for word in words)


def test_a_language_that_the_model_does_not_have_is_refused_in_words(vosk: Daemon) -> None:
    with vosk.json(language="fr") as client:
        event = json.loads(client.recv())
    assert event["type"] == "error"
    assert "understands ko" in event["message"]


def test_flush_forces_a_final_and_the_session_goes_on(vosk: Daemon, korean: list[Clip]) -> None:
    pcm = at_16k_mono(korean[0]).rstrip(b"\0")
    pcm += bytes(len(pcm) % 2)
    with vosk.json(partials=0) as client:
        assert json.loads(client.recv()) == {"type": "ready"}
        texts = []
        for _round in range(2):
            for piece in pieces(pcm):
                client.send(piece)
            client.send('{"type": "flush"}')
            texts.append(json.loads(client.recv(20))["text"])
    assert texts[0]
    assert texts[1]
