"""`sttd listen`: what a microphone hears."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.loudspeaker import CAN_HEAR, WHY_NOT, Speaker, complete, loudspeaker
from tests.support import Daemon, environment, normalized, running_daemon, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.reliability, pytest.mark.skipif(not CAN_HEAR, reason=WHY_NOT)]  # they take as long as speech


@pytest.fixture
def speaker(tmp_path: Path) -> Iterator[Speaker]:
    with loudspeaker(tmp_path) as found:
        yield found


class Listener:
    """A running `sttd listen`."""

    def __init__(self, speaker: Speaker, *arguments: str, folder: Path, stdin: int | None = subprocess.DEVNULL) -> None:
        self.out, self.err = folder / "out", folder / "err"
        command = [sys.executable, "-m", "sttd", "listen", *arguments]
        with self.out.open("w") as out, self.err.open("w") as err:
            settings = environment("/nonexistent", **speaker.environment)
            self.process = subprocess.Popen(command, stdin=stdin, stdout=out, stderr=err, env=settings)
        wait_until(lambda: "Listening to" in self.said or self.process.poll() is not None, 20, "sttd to listen")

    @property
    def said(self) -> str:
        return self.err.read_text()

    @property
    def texts(self) -> list[str]:
        return [normalized(line) for line in self.out.read_text().splitlines()]

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@contextmanager
def listener(
    speaker: Speaker, *arguments: str, folder: Path, stdin: int | None = subprocess.DEVNULL
) -> Iterator[Listener]:
    found = Listener(speaker, *arguments, folder=folder, stdin=stdin)
    try:
        yield found
    finally:
        found.process.kill()
        found.process.wait()


def test_what_is_said_is_printed_and_given_to_a_command(whisper: Daemon, speaker: Speaker, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    command = f"""sh -c 'sleep 1; echo "$1" >> {notes}' sh"""
    with listener(speaker, "--url", whisper.url("/ws/stt"), "--exec", command, folder=tmp_path) as found:
        speaker.play().wait()
        wait_until(lambda: len(found.texts) == 1, 10, "the first text")
        speaker.play().wait()
        assert found.end() == 0, found.said
        assert complete(2, found.texts)
        assert [normalized(line) for line in notes.read_text().splitlines()] == found.texts
        assert found.said.count("Listening to") == 1


def test_events_as_json(whisper: Daemon, speaker: Speaker, tmp_path: Path) -> None:
    with listener(speaker, "--url", whisper.url("/ws/stt"), "--json", folder=tmp_path) as found:
        speaker.play().wait()
        assert found.end(signal.SIGTERM) == 0
        events = [json.loads(line) for line in found.out.read_text().splitlines()]
        assert events[0] == {"type": "ready"}
        (final,) = [event for event in events if event["type"] == "final"]
        assert len(final["words"]) >= 10
        assert any(event["type"] == "partial" for event in events)


def test_a_daemon_that_dies_in_the_middle_of_a_sentence_loses_no_word(
    models: Path, speaker: Speaker, tmp_path: Path
) -> None:
    address = f"unix:{tmp_path / 'socket'}"
    with (
        running_daemon(models, "--listen", address) as first,
        listener(speaker, "--url", address, folder=tmp_path) as found,
    ):
        speaker.play().wait()
        wait_until(lambda: len(found.texts) == 1, 10, "the first text")
        playing = speaker.play()
        time.sleep(1.5)
        first.process.kill()
        playing.wait()
        with running_daemon(models, "--listen", address):
            speaker.play().wait()
            assert found.end() == 0, found.said
        assert complete(3, found.texts)
        assert found.said.count("keeping what you say") == 1
        assert found.said.count("connected again") == 1


def test_push_to_talk(whisper: Daemon, speaker: Speaker, tmp_path: Path) -> None:
    keyboard, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    with listener(speaker, "--url", whisper.url("/ws/stt"), "--push-to-talk", folder=tmp_path, stdin=terminal) as found:
        speaker.play().wait()
        time.sleep(0.5)  # it is not heard as soon as it is played
        os.write(keyboard, b" ")
        wait_until(lambda: "speak\n" in found.said, 5, "it to hear")
        speaker.play().wait()
        os.write(keyboard, b" ")
        wait_until(lambda: found.texts, 5, "the text, without a pause")
        time.sleep(0.5)  # the key has been obeyed
        speaker.play().wait()
        assert found.end() == 0, found.said
        assert complete(1, found.texts)
    assert termios.tcgetattr(terminal) == before
    os.close(keyboard)
    os.close(terminal)


def test_push_to_talk_without_a_terminal(whisper: Daemon, speaker: Speaker, tmp_path: Path) -> None:
    reading, button = os.pipe()
    with listener(speaker, "--url", whisper.url("/ws/stt"), "--push-to-talk", folder=tmp_path, stdin=reading) as found:
        os.write(button, b"down\n")
        wait_until(lambda: "speak\n" in found.said, 5, "it to hear")
        speaker.play().wait()
        os.write(button, b"up\n")
        os.close(button)
        assert found.process.wait(30) == 0, found.said
        assert complete(1, found.texts)
    os.close(reading)


def test_a_microphone_that_is_taken_away(whisper: Daemon, speaker: Speaker, tmp_path: Path) -> None:
    with listener(speaker, "--url", whisper.url("/ws/stt"), folder=tmp_path) as found:
        playing = speaker.play()
        time.sleep(2.5)
        speaker.process.kill()
        playing.wait()
        assert found.process.wait(30) == 69
        assert "is gone" in found.said
        assert found.texts[0]


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["--list-devices"], 0, "default"),
        (["--device", "nobody has this"], 69, "sttd listen --list-devices"),
        (["--device", "77"], 69, "sttd listen --list-devices"),
        (["--exec", "nobody-has-this-program"], 78, "there is no command nobody-has-this-program"),
        (["--exec", "'"], 78, "No closing quotation"),
        (["--url", "ws://127.0.0.1:9/ws/stt"], 69, "no sttd answers"),
        (["--url", "nonsense"], 69, "an address is like"),
    ],
)
def test_what_is_there_and_what_is_not(
    speaker: Speaker, tmp_path: Path, arguments: list[str], code: int, part: str
) -> None:
    with listener(speaker, *arguments, folder=tmp_path) as found:
        assert found.process.wait(30) == code
        assert part in found.said + found.out.read_text()
        assert "Traceback" not in found.said


def test_a_daemon_without_a_model_and_one_whose_model_is_damaged(
    models: Path, speaker: Speaker, tmp_path: Path
) -> None:
    with (
        running_daemon(tmp_path / "empty", ready=False) as daemon,
        listener(speaker, "--url", daemon.url("/ws/stt"), folder=tmp_path) as found,
    ):
        assert found.process.wait(30) == 69
        assert found.said == "sttd: No STT model available\n"
    shutil.copytree(models / "faster_whisper/tiny.en", tmp_path / "bad/faster_whisper/tiny.en")
    (tmp_path / "bad/faster_whisper/tiny.en/config.json").write_text("{}")
    with (
        running_daemon(tmp_path / "bad", ready=False) as daemon,
        listener(speaker, "--url", daemon.url("/ws/stt"), folder=tmp_path) as found,
    ):
        assert found.process.wait(30) == 70
        assert "config.json" in found.said


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-x\r\n"])
def test_whatever_else_listens_there_is_told(speaker: Speaker, tmp_path: Path, greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with suppress(OSError):
                connection, _ = server.accept()
                connection.sendall(greeting)
                time.sleep(12)
                connection.close()

        thread = threading.Thread(target=greet)
        thread.start()
        address = f"ws://127.0.0.1:{server.getsockname()[1]}/ws/stt"
        with listener(speaker, "--url", address, folder=tmp_path) as found:
            assert found.process.wait(30) == 69
            assert address in found.said
            assert "Traceback" not in found.said
        thread.join()
