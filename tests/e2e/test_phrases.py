"""Sessions that say what will be said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.support import Clip, Daemon, at_16k_mono, finals, json_events, pieces

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection


def told(client: ClientConnection, **options: Any) -> list[dict[str, Any]]:
    """Change options, end the stream; every event until the Close."""
    assert isinstance(client.recv(), str)
    client.send(json.dumps({"type": "config", **options}))
    client.send('{"type": "eof"}')
    return [json.loads(message) for message in client]


def test_vosk_hears_nothing_but_the_phrases(vosk: Daemon, korean: list[Clip]) -> None:
    pcm = at_16k_mono(korean[0])
    with vosk.json() as client:
        said = " ".join(finals(json_events(client, pcm))).split()
    with vosk.json() as client:
        client.send(json.dumps({"type": "config", "phrases": [said[0]], "gate": False}))
        for piece in pieces(pcm):
            client.send(piece)
        client.send('{"type": "eof"}')
        limited = " ".join(finals([json.loads(message) for message in client])).split()
    assert limited
    assert set(limited) == {said[0]}
    assert set(said) - {said[0]}, "without the phrases it hears more"


def test_words_that_the_model_does_not_know_are_named(vosk: Daemon) -> None:
    with vosk.json(warnings=1) as client:
        events = told(client, phrases=["감사 합니다", "supercalifragilistic"])
    assert [event["message"] for event in events if event["type"] == "warning"] == [
        "phrases: the model vosk-small-ko does not know: supercalifragilistic"
    ]
    for none in ("supercalifragilistic", "<eps>", "[unk]", "", "\t", "\ud800"):
        with vosk.json() as client:
            events = told(client, phrases=[none])
        assert events[0]["type"] == "error", none
        assert events[0]["message"].startswith("phrases: "), none


def test_whisper_says_that_it_makes_no_use_of_phrases(whisper: Daemon) -> None:
    with whisper.json(warnings=1) as client:
        events = told(client, phrases=["yes", "no"])
    assert [event["message"] for event in events] == ["phrases: faster_whisper makes no use of them"]
