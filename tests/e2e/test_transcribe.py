"""`sttd transcribe` with files: what it takes, what it writes, and how it goes on."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.e2e.test_openai import encoded
from tests.support import Clip, Daemon, at_16k_mono, environment, normalized, running_daemon, wait_until


@pytest.fixture
def folder(two_cities: Clip, beckett: Clip, tmp_path: Path) -> Path:
    """Recordings, and what is none."""
    place = tmp_path / "talks"
    (place / "deep").mkdir(parents=True)
    samples = np.frombuffer(at_16k_mono(two_cities), np.int16)[: 5 * 16000]
    soundfile.write(place / "best.flac", samples, 16000)
    soundfile.write(place / "best.ogg", samples, 16000)
    shutil.copy(beckett.path, place / "deep/ever.wav")
    (place / "notes.txt").write_text("no sound")
    return place


def sttd(*arguments: object, models: Path | str = "/nonexistent", **extra: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sttd", "transcribe", *map(str, arguments)]
    return subprocess.run(
        command, env=environment(models, **extra), capture_output=True, text=True, check=False, timeout=100
    )


def test_a_folder_becomes_a_folder_of_texts(whisper: Daemon, folder: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    (folder / "bad.mp3").write_text("This is no sound.")
    options = ("--url", whisper.url("/ws/stt"), "--output", texts)
    done = sttd(folder, *options)
    assert done.returncode == 1
    assert re.search(r"bad\.mp3: this is not an audio file", done.stderr)
    assert done.stderr.endswith("sttd: 1 of 4 recordings failed\n")
    found = {str(file.relative_to(texts)): file.read_text() for file in texts.rglob("*") if file.is_file()}
    assert set(found) == {"best.txt", "best.ogg.txt", "deep/ever.txt"}
    assert "best of times" in found["best.txt"]
    assert "fail" in found["deep/ever.txt"].lower()
    (folder / "bad.mp3").unlink()
    (texts / "best.txt").write_text("mine")
    again = sttd(folder, *options)
    assert again.returncode == 0
    assert again.stderr.count("is there already") == 3
    assert (texts / "best.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("kind", "begins"),
    [("srt", "1\n00:00:0"), ("vtt", "WEBVTT\n\n00:00:0"), ("tsv", "start\tend\ttext\n"), ("txt", "It was")],
)
def test_formats(whisper: Daemon, folder: Path, kind: str, begins: str) -> None:
    done = sttd("--url", f"http://{whisper.address}", "-f", kind, folder / "best.flac")
    assert done.stdout.startswith(begins)
    assert "best of times" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


def test_json_has_words_and_the_language(whisper: Daemon, folder: Path) -> None:
    found = json.loads(sttd("--url", whisper.url("/ws/stt"), folder / "best.flac", "-f", "json").stdout)
    assert found["language"] == "en"
    assert normalized(" ".join(word["word"] for word in found["words"])) == normalized(found["text"])


def test_several_files_by_several_daemons(whisper: Daemon, vosk: Daemon, folder: Path) -> None:
    """A pattern that no shell has expanded; files behind options; and each text below the name of its file."""
    urls = ("--url", whisper.url("/ws/stt"), "--url", vosk.url("/ws/stt"))
    done = sttd(folder / "*.flac", *urls, folder / "deep/ever.wav", folder / "best.ogg", "--jobs", 1)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("best.flac", "ever.wav", "best.ogg"):
        assert f"{name}:\n" in done.stdout


def test_no_daemon_and_a_token(models: Path, folder: Path, tmp_path: Path) -> None:
    file = folder / "best.flac"
    gone = sttd("--url", "http://127.0.0.1:9", file)
    assert gone.returncode == 1
    assert "no sttd answers at http://127.0.0.1:9" in gone.stderr
    tokens = tmp_path / "tokens.toml"
    tokens.write_text('kitchen = "a-token-of-many-letters"')
    with running_daemon(models, "--set", f"access.tokens_file={tokens}") as daemon:
        for arguments in ((file,), ()):  # an upload, and a live session with the sample
            refused = sttd("--url", daemon.url("/ws/stt"), *arguments)
            assert refused.returncode in (1, 69)
            assert "token" in refused.stderr
            done = sttd("--url", daemon.url("/ws/stt"), *arguments, STTD_TOKEN="a-token-of-many-letters")
            assert done.returncode == 0, done.stderr
            assert len(done.stdout.split()) > 5


def test_without_a_daemon(models: Path, folder: Path) -> None:
    done = sttd("--local", folder / "best.flac", models=models)
    assert done.returncode == 0, done.stderr
    assert "best of times" in done.stdout


def test_without_a_daemon_where_one_runs(whisper: Daemon, models: Path, folder: Path) -> None:
    """The addresses and the tokens of the machine's own daemon, which stand in the same settings, are no concern."""
    settings = {"STTD_WYOMING__LISTEN": whisper.address, "STTD_ACCESS__TOKENS_FILE": "/nonexistent/tokens.toml"}
    done = sttd("--local", folder / "best.flac", models=models, **settings)
    assert done.returncode == 0, done.stderr
    assert "best of times" in done.stdout


def test_a_daemon_without_room_is_asked_again(models: Path, folder: Path) -> None:
    with running_daemon(models, "--set", "limits.uploads=1") as daemon:
        done = sttd("--url", daemon.url("/ws/stt"), folder / "best.ogg", folder / "best.flac", "--jobs", 2)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("best of times") == 2


def test_an_interrupt_leaves_whole_texts_only(models: Path, folder: Path, beckett: Clip, tmp_path: Path) -> None:
    """In a terminal, which shows a bar; the daemon that was started for it is gone too."""
    for number in range(20):
        shutil.copy(beckett.path, folder / f"{number:02}.wav")
    texts = tmp_path / "texts"
    command = [sys.executable, "-m", "sttd", "transcribe", "--local", str(folder), "--output", str(texts)]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, command, environment(models))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    wait_until(lambda: len(list(texts.glob("*.txt"))) >= 3, 60, "some texts")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(pid, signal.SIGWINCH)
    os.kill(pid, signal.SIGINT)
    shown = read_all(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert "interrupted" in shown
    assert re.search(r"23 files: +\d+%", shown)
    assert all(file.read_text().strip() for file in texts.glob("*.txt"))
    assert children
    wait_until(lambda: not any(os.path.exists(f"/proc/{child}") for child in children), 10, "the daemon to be gone")


def read_all(terminal: int) -> str:
    shown, until = b"", time.monotonic() + 30
    while time.monotonic() < until:
        try:
            data = os.read(terminal, 65536)
        except OSError as error:
            if error.errno == errno.EIO:  # nobody has it open
                break
            raise
        shown += data
    os.close(terminal)
    return shown.decode(errors="replace")


FORMATS = {  # suffix: container, codec, rate, channels
    "3gp": ("3gp", "aac", 16000, 1),
    "aac": ("adts", "aac", 44100, 2),
    "ac3": ("ac3", "ac3", 48000, 2),
    "aiff": ("aiff", "pcm_s16be", 44100, 2),
    "au": ("au", "pcm_s16be", 8000, 1),
    "avi": ("avi", "mp3", 44100, 2),
    "caf": ("caf", "pcm_s16le", 48000, 1),
    "flac": ("flac", "flac", 44100, 2),
    "flv": ("flv", "mp3", 44100, 2),
    "m4a": ("ipod", "aac", 44100, 2),
    "mka": ("matroska", "libopus", 48000, 2),
    "mkv": ("matroska", "aac", 48000, 2),
    "mov": ("mov", "pcm_s16le", 48000, 2),
    "mp3": ("mp3", "libmp3lame", 44100, 2),
    "mp4": ("mp4", "aac", 48000, 2),
    "mpg": ("mpeg", "mp2", 44100, 2),
    "oga": ("ogg", "libopus", 48000, 2),
    "opus": ("ogg", "libopus", 48000, 1),
    "ts": ("mpegts", "aac", 48000, 2),
    "w64": ("w64", "pcm_s16le", 16000, 1),
    "wav": ("wav", "pcm_f32le", 48000, 2),
    "webm": ("webm", "libopus", 48000, 1),
    "wma": ("asf", "libmp3lame", 44100, 2),
}


def test_every_format_and_damaged_files(whisper: Daemon, two_cities: Clip, tmp_path: Path) -> None:
    """What the suffixes of a folder promise is read; half a file gives what it has, or says why not."""
    whole, halves, texts = tmp_path / "whole", tmp_path / "half", tmp_path / "texts"
    whole.mkdir()
    halves.mkdir()
    for suffix, form in FORMATS.items():
        data = encoded(two_cities, *form)
        (whole / f"{suffix}.{suffix}").write_bytes(data)
        (halves / f"{suffix}.{suffix}").write_bytes(data[: len(data) * 2 // 3])
    options = ("--url", whisper.url("/ws/stt"), "--output")
    done = sttd(whole, *options, texts)
    assert done.returncode == 0, done.stderr
    found = {file.stem: normalized(file.read_text()) for file in texts.iterdir()}
    assert set(found) == set(FORMATS)
    assert {name for name, text in found.items() if "best of times" not in text} == set()
    done = sttd(halves, *options, tmp_path / "half of it")
    texts_of_halves = {file.stem for file in (tmp_path / "half of it").iterdir()}
    refused = set(re.findall(r"half/\w+\.(\w+): ", done.stderr))
    assert texts_of_halves | refused == set(FORMATS)
    assert len(texts_of_halves) >= 15, refused  # the others keep their index at the end
    assert done.returncode == (1 if refused else 0)
    assert "Traceback" not in done.stderr
