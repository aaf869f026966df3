"""The deepgram provider, from outside: a client, a daemon, and a stand-in that checks what it is sent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jiwer
import pytest
from websockets.exceptions import ConnectionClosed

from tests.cloud.deepgram_standin import Reject
from tests.support import KEY, Clip, at_16k_mono, finals, json_events, pieces

if TYPE_CHECKING:
    from tests.cloud.conftest import Starter
    from tests.cloud.deepgram_standin import DeepgramStandin
    from tests.support import Daemon

CLIPS = 2
WORSE = 0.05
"""By how much the share of wrong characters may grow: where an utterance is cut, a model hears a little else."""


@pytest.fixture(scope="module")
def clips(korean: list[Clip]) -> list[Clip]:
    return sorted(korean, key=lambda clip: len(clip.samples))[:CLIPS]


@pytest.fixture(scope="module")
def speech(clips: list[Clip]) -> bytes:
    """Some utterances, and a second of silence after each."""
    return b"".join(at_16k_mono(clip) + bytes(32000) for clip in clips)


def live(daemon: Daemon, pcm: bytes, speed: float = 4, **options: object) -> list[dict[str, Any]]:
    """Stream it faster than it was spoken, but not at once."""
    with daemon.json(**options) as client:
        for piece in pieces(pcm):
            client.send(piece)
            time.sleep(0.1 / speed)
        client.send('{"type": "eof"}')
        return [json.loads(message) for message in client]


def text(events: list[dict[str, Any]]) -> str:
    return " ".join(finals(events))


Check = Callable[[str], None]


@pytest.fixture(scope="module")
def check(deepgram_daemon: Daemon, speech: bytes, clips: list[Clip]) -> Check:
    """Fails for a text that has more errors than when all goes well."""
    transcript = " ".join(clip.transcript for clip in clips)
    undisturbed = jiwer.cer(transcript, text(live(deepgram_daemon, speech)))

    def compare(found: str) -> None:
        assert jiwer.cer(transcript, found) <= undisturbed + WORSE, found

    return compare


def test_partials_and_finals_come_as_from_a_local_provider(
    deepgram: DeepgramStandin, start_deepgram: Starter, speech: bytes
) -> None:
    with start_deepgram() as daemon:
        events = live(daemon, speech, words=1, language="ko", phrases="온도,조명")
        assert daemon.log().count("it is sent to Deepgram (127.0.0.1)") == 1
    assert {event["type"] for event in events} == {"ready", "partial", "final"}
    assert len(finals(events)) >= CLIPS
    starts = [word["start"] for event in events if event["type"] == "final" for word in event["words"]]
    assert starts == sorted(starts)
    assert starts[-1] < len(speech) / 32000
    assert starts[-1] > (len(speech) - 32000) / 32000 - 4
    (stream,) = deepgram.streams
    assert stream.query["interim_results"] == ["true"]
    assert stream.query["language"] == ["ko"]
    assert stream.query["keyterm"] == ["온도", "조명"]
    assert stream.finalized >= CLIPS
    assert stream.closed_properly
    assert stream.seconds < len(speech) / 32000, "silence is not sent"


def test_the_plain_protocol_gives_the_same_text(deepgram_daemon: Daemon, check: Check, speech: bytes) -> None:
    with deepgram_daemon.plain() as client:
        client.send(speech)
        check(str(client.recv(30)))


def test_a_silent_stream_is_kept_alive(deepgram: DeepgramStandin, deepgram_daemon: Daemon, clips: list[Clip]) -> None:
    clip = at_16k_mono(clips[0])
    with deepgram_daemon.json(partials=0) as client:
        client.recv()
        for piece in pieces(clip + bytes(32000)):
            client.send(piece)
        assert json.loads(client.recv(20))["text"]
        time.sleep(8.5)  # the stand-in closes after 6 s without anything, Deepgram after 10
        events = json_events(client, clip + bytes(32000))
    assert finals(events)
    assert len(deepgram.streams) == 1
    assert deepgram.streams[0].keepalives == 2


def test_a_long_utterance_that_comes_at_once_has_time_to_be_sent(
    deepgram: DeepgramStandin, start_deepgram: Starter, korean: list[Clip]
) -> None:
    """Twenty seconds take five, which is more than the deadline, and more than may wait to be sent."""
    pcm = (2 * b"".join(at_16k_mono(clip) for clip in korean))[: 20 * 32000]
    with start_deepgram("deepgram.deadline_s=3.5") as daemon, daemon.json(gate=0) as client:
        events = json_events(client, pcm)
    assert finals(events)
    assert [event for event in events if event["type"] == "error"] == []
    assert deepgram.streams[0].seconds == pytest.approx(20)


def test_phrases_are_hints_to_the_cloud_and_no_limit_to_the_local_provider(
    deepgram: DeepgramStandin, start_deepgram: Starter, check: Check, speech: bytes
) -> None:
    deepgram.faults.append(Reject(401))
    with start_deepgram(fallback="vosk") as daemon:
        check(text(live(daemon, speech, phrases="온도,조명")))
        assert "vosk takes over" in daemon.log()


def test_without_a_fallback_the_client_is_told_in_words(
    deepgram: DeepgramStandin, deepgram_daemon: Daemon, speech: bytes
) -> None:
    deepgram.faults.append(Reject(401))
    events = live(deepgram_daemon, speech)
    errors = [event["message"] for event in events if event["type"] == "error"]
    assert errors == ["Deepgram rejected the API key (401)"]
    assert finals(events), "the session goes on, and the next utterance is understood"
    assert "secret" not in json.dumps(events)
    deepgram.faults.append(Reject(401))
    with deepgram_daemon.plain() as client:
        client.send(speech)
        with pytest.raises(ConnectionClosed, match=r"1011.*Deepgram rejected the API key \(401\)"):
            client.recv(30)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its imports
def test_the_vendors_own_client_is_accepted_too(
    deepgram: DeepgramStandin, speech: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the stand-in is no easier than what the vendor's client sends."""
    from deepgram import DeepgramClient
    from deepgram.core.events import EventType
    from deepgram.environment import DeepgramClientEnvironment

    monkeypatch.setenv("SSL_CERT_FILE", str(deepgram.certificates.file))
    host = deepgram.base_url.removeprefix("wss://")
    environment = DeepgramClientEnvironment(
        base=f"https://{host}", production=f"wss://{host}", agent=f"wss://{host}", agent_rest=f"https://{host}"
    )
    client = DeepgramClient(api_key=KEY, environment=environment)
    heard: list[Any] = []
    with client.listen.v1.connect(
        model="nova-3", encoding="linear16", sample_rate="16000", channels="1", interim_results="true", language="ko"
    ) as connection:
        connection.on(EventType.MESSAGE, heard.append)
        listening = threading.Thread(target=connection.start_listening)
        listening.start()
        for piece in pieces(speech):
            connection.send_media(piece)
        connection.send_keep_alive()
        connection.send_finalize()
        connection.send_close_stream()
        listening.join(30)
    texts = [message.channel.alternatives[0].transcript for message in heard if message.type == "Results"]
    assert any(texts)
    # The daemon of an earlier test may have connected once more as it was stopped.
    (stream,) = (one for one in deepgram.streams if "smart_format" not in one.query)
    assert stream.closed_properly
