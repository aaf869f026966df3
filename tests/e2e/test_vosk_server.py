"""The wire of vosk-server: its own client, and the traffic of programs that speak it their own way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support import Clip, Daemon, at_16k_mono, finals, json_events, running_daemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

PIECE = 6400
HUGE = '{"sample_rate": 1' + "0" * 400 + "}"


@pytest.fixture(scope="module")
def vosk(still_models: Path) -> Iterator[Daemon]:
    with running_daemon(still_models, "--provider", "vosk") as daemon:
        yield daemon


@pytest.fixture(scope="module")
def whisper(models: Path) -> Iterator[Daemon]:
    with running_daemon(models, "--provider", "faster_whisper") as daemon:
        yield daemon


def lock_step(client: ClientConnection, pcm: bytes) -> list[dict[str, Any]]:
    """Send a message, read its reply, and so on; then `eof`, and its reply."""
    replies = []
    for start in range(0, len(pcm), PIECE):
        client.send(pcm[start : start + PIECE])
        replies.append(json.loads(client.recv(30)))
    client.send('{"eof" : 1}')
    replies.append(json.loads(client.recv(30)))
    with pytest.raises(ConnectionClosed):
        client.recv(5)
    assert client.close_code == 1000
    return replies


def said(replies: list[dict[str, Any]]) -> list[str]:
    return [reply["text"] for reply in replies if reply.get("text")]


def test_every_message_has_one_reply_and_results_are_those_of_the_json_protocol(
    vosk: Daemon, korean: list[Clip]
) -> None:
    pcm = at_16k_mono(korean[0])
    with vosk.client("/vosk") as client:
        client.send('{ "config" : { "sample_rate" : 16000.000000 } }')
        replies = lock_step(client, pcm)
    with vosk.json() as client:
        expected = finals(json_events(client, pcm))
    assert said(replies) == expected
    for reply in replies:
        assert set(reply) in ({"partial"}, {"text"}, {"result", "text"})
        for word in reply.get("result", ()):
            assert set(word) == {"conf", "end", "start", "word"}
        if "result" in reply:
            assert " ".join(word["word"] for word in reply["result"]) == reply["text"]
    assert any(reply.get("partial") for reply in replies)
    assert replies[0] == {"partial": ""}


def test_whisper_speaks_it_too(whisper: Daemon, beckett: Clip) -> None:
    with whisper.client("/vosk") as client:
        client.send('{"config": {"sample_rate": "16000", "words": 0, "a key of somebody": {"x": 1}}}')
        replies = lock_step(client, at_16k_mono(beckett))
    assert "fail" in " ".join(said(replies)).lower()
    assert not any("result" in reply for reply in replies)


def test_without_a_config_audio_has_8000_hz(vosk: Daemon, korean: list[Clip]) -> None:
    """As Asterisk's client sends it, which reads no reply and asks for a subprotocol."""
    pcm = at_16k_mono(korean[0])
    half = b"".join(pcm[at : at + 2] for at in range(0, len(pcm), 4))
    with vosk.client("/vosk") as client:
        replies = lock_step(client, half)
    assert said(replies)
    with vosk.client("/vosk", subprotocols=["ws"]) as client:
        assert client.subprotocol is None
        for start in range(0, len(half), 3200):
            client.send(half[start : start + 3200])
        client.send(b'{"eof" : 1}')
        assert len(list(client)) == len(range(0, len(half), 3200)) + 1, "all have come when it leaves"


def test_a_reset_gives_a_result_and_the_session_goes_on(vosk: Daemon, korean: list[Clip]) -> None:
    pcm = at_16k_mono(korean[0])
    with vosk.client("/vosk", sample_rate=16000) as client:
        client.send('{"reset":1}')
        assert json.loads(client.recv(5)) == {"text": ""}
        for start in range(0, 3 * 32000, PIECE):
            client.send(pcm[start : start + PIECE])
            client.recv(10)
        client.send(' {"reset" : 1} ')
        assert "text" in json.loads(client.recv(10))
        client.send("what is that?")  # nothing, and no reply
        assert said(lock_step(client, pcm))


def test_alternatives(vosk: Daemon, korean: list[Clip]) -> None:
    with vosk.client("/vosk") as client:
        client.send('{"config": {"sample_rate": 16000, "max_alternatives": 3}}')
        replies = lock_step(client, at_16k_mono(korean[0]))
    found = [reply["alternatives"][0] for reply in replies if "alternatives" in reply]
    assert any(set(best) == {"confidence", "result", "text"} and best["text"] for best in found)
    assert set(found[0].get("result", [{}])[0]) in ({"start", "end", "word"}, set())
    with vosk.client("/vosk") as client:
        client.send('{"config": {"max_alternatives": 3}}')
        client.send('{"eof": 1}')
        assert json.loads(client.recv(5)) == {"alternatives": [{"text": "", "confidence": 1.0}]}


@pytest.mark.parametrize(
    "config",
    ["[]", '{"sample_rate": "fast"}', '{"sample_rate": 1e400}', HUGE, '{"words": {}}'],
)
def test_a_config_that_cannot_be_used_changes_nothing(vosk: Daemon, config: str) -> None:
    with vosk.client("/vosk") as client:
        client.send(f'{{"config": {config}}}')
        client.send(bytes(PIECE))
        assert json.loads(client.recv(5)) == {"partial": ""}


TRANSCRIBER = """
import sys
from vosk.transcriber import cli

next(action for action in cli.parser._actions if "--server" in action.option_strings).const = sys.argv.pop(1)
cli.main()
"""
"""`vosk-transcriber --server`, as its package brings it, but with an address that is free."""


def test_vosk_s_own_client(still_models: Path, korean: list[Clip], tmp_path: Path) -> None:
    """It asks for the path / of a listener that serves nothing else."""
    recording, text, ffmpeg = tmp_path / "recording.pcm", tmp_path / "text.txt", tmp_path / "ffmpeg"
    recording.write_bytes(at_16k_mono(korean[0]))
    ffmpeg.write_text(f"#!/bin/sh\nexec cat '{recording}'\n")  # it only decodes files for the client
    ffmpeg.chmod(0o755)
    # It loads a model of its own in any case.
    arguments = ("--server", "--model", str(still_models / "vosk/vosk-small-ko"), "-i", str(recording), "-o", str(text))
    settings = ("--provider", "vosk", "--set", "vosk_server.listen=127.0.0.1:0")
    with running_daemon(still_models, *settings) as vosk:
        address = re.search(r"(ws://\S+)  \(any path\)", "".join(vosk.lines))
        assert address
        done = subprocess.run(
            [sys.executable, "-c", TRANSCRIBER, address[1], *arguments],
            capture_output=True,
            text=True,
            timeout=100,
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        with vosk.json() as client:
            expected = finals(json_events(client, at_16k_mono(korean[0])))
    assert text.read_text().split() == " ".join(expected).split()
