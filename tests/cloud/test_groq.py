"""The groq provider, from outside: a client, a daemon, and a stand-in that checks every byte."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from tests.cloud.groq_standin import Body, Drop, Status
from tests.support import KEY, Clip, at_16k_mono, finals, json_events, normalized, running_daemon

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cloud.conftest import Starter
    from tests.cloud.groq_standin import GroqStandin
    from tests.support import Daemon

SENTENCE = 84 * 3200
SAID = "it was the best of times it was the worst of times it was the age of wisdom it was the age of foolishness"


@pytest.fixture
def speech(two_cities: Clip) -> bytes:
    """One utterance."""
    return at_16k_mono(two_cities)[:SENTENCE] + bytes(32000)


def said(daemon: Daemon, pcm: bytes, **options: object) -> str:
    with daemon.json(partials=0, **options) as client:
        events = json_events(client, pcm)
        assert [event for event in events if event["type"] == "error"] == []
        return normalized(" ".join(finals(events)))


def test_utterances_go_out_as_documented_and_their_text_comes_back(
    groq: GroqStandin, start_groq: Starter, speech: bytes
) -> None:
    with start_groq("groq.prompt=Dickens") as daemon:
        assert said(daemon, speech * 2) == f"{SAID} {SAID}"
        with daemon.plain() as client:
            client.send(speech)
            assert normalized(str(client.recv(30))) == SAID
    assert len(groq.seen) == 3
    assert len({request.connection for request in groq.seen}) == 1, "one connection is kept"
    first = groq.seen[0]
    assert first.fields["model"] == ["whisper-large-v3-turbo"]
    assert first.fields["prompt"] == ["Dickens"]
    assert normalized(groq.seen[1].fields["prompt"][0]) == f"dickens {SAID}"
    assert first.fields["response_format"] == ["json"]
    assert first.filename == "audio.flac"
    assert 7 < first.seconds < 10


@pytest.mark.parametrize(
    ("variables", "engine"),
    [
        ({"ALL_PROXY": "socks5://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}, "groq"),
        ({"HTTP_PROXY": "socks4://127.0.0.1:9"}, "groq"),
        ({"ALL_PROXY": "socks5://127.0.0.1:9"}, "faster_whisper"),
        ({"HTTPS_PROXY": "socks4://127.0.0.1:9"}, "faster_whisper"),
        ({"https_proxy": "http://[::1"}, "faster_whisper"),
    ],
    ids=str,
)
def test_a_proxy_that_is_of_no_use_is_the_cloud_s_failure(
    variables: dict[str, str], engine: str, start_groq: Starter, speech: bytes
) -> None:
    with start_groq(fallback="faster_whisper", **variables) as daemon:
        with daemon.json(partials=0, engine=1) as client:
            (final,) = [event for event in json_events(client, speech) if event["type"] == "final"]
        assert final["engine"] == engine
        assert normalized(final["text"]) == SAID


def test_without_a_fallback_clients_are_told_and_readyz_too(start_groq: Starter, speech: bytes) -> None:
    with start_groq(HTTPS_PROXY="socks4://127.0.0.1:9", ready=False) as daemon:
        assert daemon.get("/readyz")[0] == 503
        with daemon.json(partials=0, codes=1) as client:
            (error,) = [event for event in json_events(client, speech) if event["type"] == "error"]
        assert error["code"] == "provider_failed"
        assert "cannot be reached with the proxy settings in the environment" in error["message"]
    assert "Unknown scheme for proxy URL" in daemon.log()


def test_word_times_are_those_of_the_stream(groq_daemon: Daemon, speech: bytes) -> None:
    with groq_daemon.json(partials=0, words=1, language="en") as client:
        events = json_events(client, bytes(5 * 32000) + speech)
    words = next(event["words"] for event in events if event["type"] == "final")
    assert normalized(words[0]["word"]) == "it"
    assert 5.8 <= words[0]["start"] < 6.2, "a second of the recording is silence"
    assert all(0 < word["confidence"] <= 1 and word["start"] <= word["end"] < 15 for word in words)


def test_the_log_says_once_that_audio_leaves_the_machine(start_groq: Starter, speech: bytes) -> None:
    with start_groq() as daemon:
        said(daemon, speech)
        assert daemon.log().count("leaves this machine: it is sent to Groq (127.0.0.1)") == 1
        assert "it sends all audio to 127.0.0.1" in "".join(daemon.lines)


@pytest.mark.parametrize(
    "fault", [Status(429, {"retry-after": "1"}), Status(500), Status(503), Drop()], ids=["429", "500", "503", "drop"]
)
def test_what_may_pass_is_tried_again(groq: GroqStandin, groq_daemon: Daemon, speech: bytes, fault: object) -> None:
    groq.faults.append(fault)
    started = time.monotonic()
    assert said(groq_daemon, speech) == SAID
    if isinstance(fault, Status) and fault.code == 429:
        assert time.monotonic() - started >= 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Status(401), "Groq rejected the API key (401)"),
        (Status(413), "Groq says that the recording is too long (413)"),
        (Body(b"{not json"), "Groq sent an invalid answer"),
        (Body(b'{"text": 5}'), "Groq sent an invalid answer"),
        (Body(b'{"text": "' + bytes(10_000_000)), "Groq sent an answer of more than"),
    ],
    ids=["401", "413", "malformed", "not text", "10 MB"],
)
def test_what_will_not_pass_is_told_once_and_the_session_goes_on(
    groq: GroqStandin, groq_daemon: Daemon, speech: bytes, fault: object, message: str
) -> None:
    groq.faults.append(fault)
    with groq_daemon.json(partials=0) as client:
        events = json_events(client, speech * 2)
    assert [event["type"] for event in events] == ["ready", "error", "final"]
    assert events[1]["message"].startswith(message)
    assert not groq.faults
    assert len(groq.seen) == 1, "the second utterance, and no second try of the first"
    assert "org_secret" not in json.dumps(events)
    assert "req_secret" not in json.dumps(events)


def test_a_cloud_that_fails_is_left_alone_for_a_while(groq: GroqStandin, start_groq: Starter, speech: bytes) -> None:
    groq.faults.append(Status(401))
    with start_groq(fallback="faster_whisper") as daemon:
        with daemon.json(partials=0, engine=1) as client:
            events = json_events(client, speech * 2)
        with daemon.plain() as client:
            client.send(speech)
            assert normalized(str(client.recv(30))) == SAID
        assert "faster_whisper takes over" in daemon.log()
    found = [event for event in events if event["type"] == "final"]
    assert [normalized(event["text"]) for event in found] == [SAID, SAID]
    assert [(event["engine"], event["fallback_from"]) for event in found] == [("faster_whisper", "groq")] * 2
    assert not groq.seen


def test_a_fallback_that_is_missing_does_not_keep_the_cloud_away(
    groq: GroqStandin, start_groq: Starter, speech: bytes
) -> None:
    groq.faults.append(Status(401))
    with start_groq("fallback_model=vosk-small-en-us", fallback="vosk") as daemon, daemon.json(partials=0) as client:
        events = json_events(client, speech * 2)
    assert [event["type"] for event in events] == ["ready", "error", "final"]
    assert "Groq rejected the API key (401); vosk cannot take over: " in events[1]["message"]
    assert normalized(events[2]["text"]) == SAID


def test_a_session_without_the_option_sees_nothing_but_text(
    groq: GroqStandin, start_groq: Starter, speech: bytes
) -> None:
    groq.faults.append(Status(401))
    with start_groq(fallback="faster_whisper") as daemon, daemon.json(partials=0) as client:
        events = json_events(client, speech)
    assert [sorted(event) for event in events] == [["type"], ["text", "type"]]


def test_utterances_wait_and_go_together_when_the_account_has_no_room(
    groq: GroqStandin, start_groq: Starter, beckett: Clip
) -> None:
    """Six utterances of about a second each, sent at once, and room for two."""
    pcm = at_16k_mono(beckett) + bytes(32000)
    with start_groq("groq.requests_per_minute=2", "groq.deadline_s=3") as daemon:
        assert daemon.status()["cloud"] == {"requests_left": 2, "audio_seconds_left": 7200}
        with daemon.json(partials=0, words=1) as client:
            events = json_events(client, pcm)
        assert daemon.status()["cloud"]["requests_left"] < 1
        assert daemon.status()["cloud"]["audio_seconds_left"] == pytest.approx(7170, abs=15)
    texts = normalized(" ".join(finals(events))).split()
    assert texts[:4] + texts[-2:] == ["ever", "tried", "ever", "failed", "fail", "better"]
    assert len(groq.seen) == 3
    starts = [word["start"] for event in events[1:] for word in event["words"]]
    assert starts == sorted(starts)
    assert 8 < starts[-1] < 10, "words of what went out together have their own times in the stream"


def test_utterances_that_waited_for_a_cloud_that_fails_are_not_lost(
    groq: GroqStandin, start_groq: Starter, speech: bytes
) -> None:
    groq.faults.append(Status(500, {"x-should-retry": "false"}))
    with (
        start_groq("groq.requests_per_minute=1", "groq.deadline_s=2", fallback="faster_whisper") as daemon,
        daemon.json(partials=0, language="en", words=1, engine=1) as client,
    ):
        json_events(client, speech)  # the one request of this minute; who names a language meets no fault
        with daemon.json(partials=0, words=1, engine=1) as second:
            events = [event for event in json_events(second, speech * 2) if event["type"] == "final"]
    assert [normalized(event["text"]) for event in events] == [SAID, SAID]
    assert {event["engine"] for event in events} == {"faster_whisper"}
    assert events[1]["words"][0]["start"] > len(speech) / 32000, "each has its own times in the stream"


def test_a_wrong_key_is_said_in_words(start_groq: Starter, speech: bytes) -> None:
    with start_groq(key="another-key") as daemon, daemon.json(partials=0) as client:
        events = json_events(client, speech)
    assert events[1:] == [{"type": "error", "message": "Groq rejected the API key (401)"}]


def test_keys_come_from_files_too(models: Path, tmp_path: Path) -> None:
    (tmp_path / "groq.key").write_text(KEY + "\n")
    with running_daemon(models, "--provider", "groq", CREDENTIALS_DIRECTORY=str(tmp_path)):
        pass
    with running_daemon(models, "--provider", "groq", "--set", f"groq.key_file={tmp_path / 'groq.key'}"):
        pass


def test_the_vendors_own_client_is_accepted_too(groq: GroqStandin, speech: bytes, tmp_path: Path) -> None:
    """So the stand-in is no easier than what the vendor's client sends."""
    import ssl

    import groq as vendor
    import httpx

    from sttd.audio.encode import encoded

    upload = encoded(speech)
    context = ssl.create_default_context(cafile=str(groq.certificates.file))
    with vendor.Groq(
        api_key=KEY, base_url=groq.base_url.removesuffix("/openai/v1"), http_client=httpx.Client(verify=context)
    ) as client:
        answer = client.audio.transcriptions.create(
            file=(upload.name, upload.content),
            model="whisper-large-v3-turbo",
            response_format="verbose_json",
            timestamp_granularities=["word"],
            language="en",
            temperature=0.0,
        )
    assert normalized(answer.text) == SAID
