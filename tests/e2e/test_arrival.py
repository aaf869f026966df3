"""How audio arrives: whole recordings, live in long chunks, over a network that stalls, with half a sample too much."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import jiwer
import pytest

from tests.support import Clip, Daemon, at_16k_mono, finals, json_events, normalized, pieces, trimmed

if TYPE_CHECKING:
    from collections.abc import Sequence

SECOND = 32000


@pytest.fixture(params=["whisper", "vosk"])
def spoken(request: pytest.FixtureRequest, two_cities: Clip, korean: list[Clip]) -> tuple[Daemon, list[bytes]]:
    """A provider's daemon and four recordings in its language, which end with speech."""
    daemon: Daemon = request.getfixturevalue(request.param)
    if request.param == "vosk":
        return daemon, [trimmed(at_16k_mono(clip)) for clip in korean[:4]]
    pcm = at_16k_mono(two_cities)
    return daemon, [trimmed(pcm[a * 3200 : b * 3200]) for a, b in ((12, 46), (50, 82), (88, 103), (107, 128))]


def replies(daemon: Daemon, messages: Sequence[bytes], gap: float = 0.0) -> list[str]:
    with daemon.plain() as client:
        for message in messages:
            client.send(message)
            time.sleep(gap)
        found = []
        try:
            while True:
                found.append(str(client.recv(4)))
        except TimeoutError:
            return found


def answers(daemon: Daemon, path: str, messages: Sequence[bytes]) -> list[str]:
    """Of each message, sent when the one before was answered or was not for three seconds."""
    found = []
    with daemon.plain() if path == "plain" else daemon.json(partials=0) as client:
        if path == "json":
            client.recv()
        for message in messages:
            client.send(message)
            if path == "json":
                client.send('{"type": "flush"}')
            try:
                text = str(client.recv(20 if len(message) > 2 else 3))
                found.append(text if path == "plain" else json.loads(text)["text"])
            except TimeoutError:
                found.append("")
    return found


@pytest.mark.parametrize("path", ["plain", "json"])
def test_half_a_sample_spoils_nothing_that_comes_later(spoken: tuple[Daemon, list[bytes]], path: str) -> None:
    daemon, recordings = spoken
    expected = answers(daemon, path, recordings[:2])
    assert all(expected)
    assert answers(daemon, path, [recordings[0][:-1], recordings[1]])[1] == expected[1]
    assert answers(daemon, path, [b"\0", *recordings[:2]])[1:] == expected


def test_each_recording_is_answered_once_whatever_follows(spoken: tuple[Daemon, list[bytes]]) -> None:
    daemon, recordings = spoken
    alone = [replies(daemon, [recording]) for recording in recordings]
    assert [len(texts) for texts in alone] == [1] * 4
    together = replies(daemon, recordings)
    assert len(together) == 4
    assert jiwer.wer([normalized(a[0]) for a in alone], [normalized(text) for text in together]) < 0.2


@pytest.mark.parametrize("after", [[], [b""], [b"", b""]], ids=["nothing", "an empty message", "two empty messages"])
def test_a_recording_with_a_pause_in_it_is_answered_once(
    spoken: tuple[Daemon, list[bytes]], after: list[bytes]
) -> None:
    daemon, recordings = spoken
    whole = recordings[0] + bytes(3 * SECOND // 2) + recordings[1]
    assert len(replies(daemon, [whole, *after])) == 1


def test_empty_messages_are_no_end_of_an_utterance(whisper: Daemon, two_cities: Clip) -> None:
    """As some clients send them to keep a connection alive."""
    pcm = at_16k_mono(two_cities)[12 * 3200 : 46 * 3200]
    with whisper.json(partials=0) as client:
        plain = finals(json_events(client, pcm))
    with whisper.json(partials=0) as client:
        found: list[dict[str, Any]] = []
        receiver = threading.Thread(target=lambda: found.extend(json.loads(message) for message in client))
        receiver.start()
        for piece in pieces(pcm):
            client.send(piece)
            client.send(b"")
        client.send('{"type": "eof"}')
        receiver.join()
    assert finals(found) == plain


def live(daemon: Daemon, pcm: bytes, chunk_s: float, stall_after: float = 0.0, stall_s: float = 0.0) -> list[str]:
    """Finals of audio that is sent as it is spoken, `chunk_s` at a time, with a gap in which none of it arrives."""
    found: list[dict[str, Any]] = []
    size = int(chunk_s * SECOND) // 2 * 2
    with daemon.json(partials=0) as client:
        receiver = threading.Thread(target=lambda: found.extend(json.loads(message) for message in client))
        receiver.start()
        began = time.monotonic()
        for end in range(size, len(pcm) + size, size):
            late = stall_s if stall_after <= end / SECOND < stall_after + stall_s else 0
            at = began + (stall_after + stall_s if late else end / SECOND)
            time.sleep(max(0.0, at - time.monotonic()))
            client.send(pcm[end - size : end])
        client.send('{"type": "eof"}')
        receiver.join()
    return finals(found)


@pytest.mark.parametrize("chunk_s", [1.4, 2, 3])
def test_live_speech_in_long_chunks_is_not_cut_at_their_seams(
    whisper: Daemon, two_cities: Clip, chunk_s: float
) -> None:
    pcm = at_16k_mono(two_cities)[12 * 3200 : 103 * 3200]
    usual = finals_of(whisper, pcm)
    chunked = live(whisper, pcm, chunk_s)
    assert len(chunked) <= len(usual) + 1
    assert jiwer.wer(normalized(" ".join(usual)), normalized(" ".join(chunked))) < 0.1


def finals_of(daemon: Daemon, pcm: bytes) -> list[str]:
    with daemon.json(partials=0) as client:
        return finals(json_events(client, pcm))


@pytest.mark.parametrize("at", [1.6, 2.3])
def test_a_network_that_stalls_in_the_middle_of_a_word_does_not_end_the_utterance(
    whisper: Daemon, two_cities: Clip, at: float
) -> None:
    """1.3 s in which nothing arrives, and then all at once."""
    pcm = at_16k_mono(two_cities)[12 * 3200 : 46 * 3200]
    assert live(whisper, pcm, 0.1, at, 1.3) == live(whisper, pcm, 0.1)


def test_probable_speech_that_began_no_utterance_is_a_warning(whisper: Daemon, two_cities: Clip) -> None:
    word = bytes(SECOND) + at_16k_mono(two_cities)[14 * 3200 : 19 * 3200] + bytes(SECOND)
    with whisper.json(warnings=1, partials=0, min_speech_ms=2000) as client:
        events = json_events(client, word * 2)
    warnings = [event["message"] for event in events if event["type"] == "warning"]
    assert len(warnings) == 1, "the first time alone"
    assert "began no utterance" in warnings[0]
    with whisper.json(warnings=1, partials=0) as client:
        assert "warning" not in {event["type"] for event in json_events(client, word * 2)}
