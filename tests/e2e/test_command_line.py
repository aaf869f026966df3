"""The commands, as somebody types them."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import jiwer
import pytest
import soundfile
from websockets.sync.server import ServerConnection, serve

from tests.support import ROOT, Clip, Daemon, at_16k_mono, environment, normalized, running_daemon

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SAMPLE = "this is a sample what you hear is turned into text on your own machine"


def sttd(
    *arguments: str, models: Path | str = "/nonexistent", stdin: str = os.devnull, **extra: str
) -> subprocess.CompletedProcess[str]:
    with open(stdin, "rb") as file:
        return subprocess.run(
            [sys.executable, "-m", "sttd", *arguments],
            env=environment(models, **extra),
            stdin=file,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )


def test_version() -> None:
    assert re.fullmatch(r"sttd \d+\.\d+\.\d+\n", sttd("--version").stdout)


@pytest.mark.parametrize(
    ("arguments", "extra", "code", "part"),
    [
        (["--provider", "x"], {}, 78, "Unsupported STT provider: x"),
        ([], {"STT_PROVIDER": "y"}, 78, "environment STT_PROVIDER: Unsupported STT provider: y"),
        ([], {"STT_PROVIDER": "groq"}, 78, "GROQ_API_KEY"),
        (["--provider", "deepgram"], {}, 78, "DEEPGRAM_API_KEY"),
        (["--provider", "groq", "--set", "local_only=true"], {"GROQ_API_KEY": "x"}, 78, "local_only"),
        (["--provider", "groq", "--set", "groq.key_file=/nonexistent"], {}, 78, "/nonexistent"),
        (["--provider", "groq", "--set", "groq.base_url=api"], {"GROQ_API_KEY": "x"}, 78, "groq.base_url"),
        (["--provider", "groq", "--set", "fallback=deepgram"], {"GROQ_API_KEY": "x"}, 78, "fallback"),
        (["--provider", "groq", "--set", "groq.key_file=~nobody-here/key"], {}, 78, "No such file"),
        (["--model", "huge"], {}, 78, "neither a folder nor in the catalog"),
        (["--model", "x" * 300], {}, 78, "neither a folder nor in the catalog"),
        (["--model", "~nobody-here/model"], {}, 78, "neither a folder nor in the catalog"),
        (["--config", "/nonexistent.toml"], {}, 78, "/nonexistent.toml: cannot be read"),
        (["--set", "log.level=loud"], {}, 78, "one of debug, info, warning, error"),
        (["--set", "log.level"], {}, 78, "KEY=VALUE"),
        (["--listen", "8000"], {}, 78, "host:port"),
        (["--listen", "unix:relative"], {}, 78, "unix:/path"),
        (["--listen", "unix:/nonexistent/socket"], {}, 69, "cannot listen on unix:/nonexistent/socket: No such file"),
        (["--set", "wyoming.listen=0.0.0.0:10300"], {}, 78, "wyoming.peers"),
        (["--set", "wyoming.peers=home"], {}, 78, "a network is like 192.168.1.0/24"),
        (["--set", "server.listen="], {}, 78, "at least one host:port"),
        (["check-config", "--listen", "x"], {}, 78, "host:port"),
        (["--nonsense"], {}, 64, "unrecognized arguments"),
        (["modls"], {}, 64, "did you mean models?"),
        (["models", "pul"], {}, 64, "did you mean pull?"),
        (["transcribe", "--formt=srt", "x.wav"], {}, 64, "did you mean --format?"),
        (["doctor", "--cofig", "x"], {}, 64, "did you mean --config?"),
        (["transcribe", "x.wav", "--format", "str"], {}, 64, "did you mean srt?"),
        (["completion", "bsh"], {}, 64, "did you mean bash?"),
        (["--set", "endpoint.min_silense_ms=300"], {}, 78, "did you mean 'endpoint.min_silence_ms'?"),
        (["--model", "bse.en"], {}, 78, "did you mean base.en?"),
        (["bench"], {}, 66, "sttd models pull"),
        (["bench", "nobody"], {}, 78, "there is no model nobody"),
        (["listen", "--exec", "nobody-has-this-program"], {}, 78, "there is no command nobody-has-this-program"),
        (["models"], {}, 64, "ACTION"),
        (["models", "path"], {}, 66, "sttd models pull tiny.en"),
        (["models", "pull", "huge"], {}, 78, "neither a folder nor in the catalog"),
        (["models", "rm", "tiny.en"], {}, 66, "not in"),
        (["transcribe", "/nonexistent.wav"], {}, 1, "No such file"),
        (["transcribe", "/nonexistent/*.wav"], {}, 70, "no file matches"),
        (["transcribe", "/nonexistent.wav", "--url", "localhost:8000"], {}, 69, "an address is like"),
        (["transcribe", "-", "x.wav"], {}, 78, "- stands alone"),
        (["transcribe", "x.wav", "--jobs", "0"], {}, 78, "1 or more"),
        (["transcribe", "x.wav", "--model", "base"], {}, 78, "for --local"),
        (["transcribe", "x.wav", "--local", "--url", "ws://127.0.0.1:9"], {}, 78, "takes no --url"),
        (["transcribe", "x.wav", "--local"], {}, 66, "sttd models pull"),
        (["transcribe", "x.wav", "--nonsense"], {}, 64, "unrecognized arguments"),
        (["transcribe", "--url", "ws://127.0.0.1:9/ws/stt"], {}, 69, "no sttd answers"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: list[str], extra: dict[str, str], code: int, part: str
) -> None:
    done = sttd(*arguments, **extra)
    assert done.returncode == code, done.stderr
    assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("sttd")


@pytest.mark.parametrize(
    ("action", "place"),
    [*((action, "too long") for action in ("list", "pull", "path", "rm", "verify")), ("pull", "loop"), ("rm", "file")],
)
def test_a_store_that_cannot_be_used_is_said_in_one_line(action: str, place: str, tmp_path: Path) -> None:
    loop, file = tmp_path / "loop", tmp_path / "file"
    loop.symlink_to(loop)
    file.touch()
    store = {"too long": tmp_path / ("x" * 300), "loop": loop, "file": file}[place]
    done = sttd("models", action, *(["tiny.en"] if action not in ("list", "verify") else []), models=store)
    assert "Traceback" not in done.stderr
    if place == "too long":
        assert done.returncode in (66, 69)
        assert "File name too long" in done.stderr
    else:
        assert done.returncode in (66, 69)
        assert len(done.stderr.splitlines()) <= 2


def test_a_port_in_use(whisper: Daemon) -> None:
    done = sttd("--listen", whisper.address)
    assert done.returncode == 69
    assert f"cannot listen on {whisper.address}: another program listens there" in done.stderr


def test_check_config_shows_values_and_origins() -> None:
    done = sttd("check-config", "--language", "de", STTD_LOG__LEVEL="debug")
    assert done.returncode == 0
    assert 'language = "de"  # command line;' in done.stdout
    assert 'log.level = "debug"  # environment STTD_LOG__LEVEL;' in done.stdout
    assert 'server.listen = ["127.0.0.1:8000", "127.0.0.1:3000"]  # default;' in done.stdout


def test_models_on_the_command_line(models: Path, tmp_path: Path) -> None:
    listed = sttd("models", "list", models=models).stdout
    assert re.search(r"^\* tiny\.en ", listed, re.MULTILINE)
    assert re.search(r"^  small ", listed, re.MULTILINE)
    assert sttd("models", "path", models=models).stdout.strip() == str(models / "faster_whisper/tiny.en")
    assert sttd("models", "verify", "tiny.en", models=models).stdout == "tiny.en: ok\n"
    damaged = tmp_path / "faster_whisper/tiny.en"
    damaged.mkdir(parents=True)
    for file in (models / "faster_whisper/tiny.en").iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    (damaged / "config.json").write_text("{}")
    done = sttd("models", "verify", models=tmp_path)
    assert done.returncode == 66
    assert "config.json" in done.stdout
    assert sttd("models", "rm", "tiny.en", models=tmp_path).returncode == 0
    assert not damaged.exists()


def test_transcribe_sends_a_recording_and_prints_its_text(whisper: Daemon, two_cities: Clip, tmp_path: Path) -> None:
    sample = sttd("transcribe", "--url", whisper.url("/ws/stt"))
    assert normalized(sample.stdout) == SAMPLE
    done = sttd("transcribe", "--url", whisper.url("/ws/stt"), str(two_cities.path))
    assert "best of times" in done.stdout
    assert done.returncode == 0
    raw = tmp_path / "raw"
    raw.write_bytes(at_16k_mono(two_cities)[: 7 * 32000])
    assert "best of times" in sttd("transcribe", "--url", whisper.url("/ws/stt"), "-", stdin=str(raw)).stdout


@pytest.mark.parametrize(
    ("container", "subtype", "channels"),
    [
        ("WAV", "PCM_16", 1),
        ("WAVEX", "PCM_16", 3),
        ("WAV", "PCM_24", 2),
        ("WAVEX", "PCM_24", 1),
        ("WAV", "PCM_32", 1),
        ("WAV", "FLOAT", 1),
        ("WAVEX", "FLOAT", 2),
        ("WAV", "PCM_U8", 1),
        ("WAV", "ULAW", 1),
        ("WAV", "ALAW", 1),
    ],
)
def test_transcribe_takes_every_common_wav_file(
    whisper: Daemon, tmp_path: Path, container: str, subtype: str, channels: int
) -> None:
    samples, rate = soundfile.read(ROOT / "src/sttd/sample.wav", always_2d=True)
    file = tmp_path / "x.wav"
    soundfile.write(file, samples.repeat(channels, axis=1), rate, format=container, subtype=subtype)
    with file.open("ab") as end:
        end.write(b"LIST\x04\0\0\0notes")  # what follows the samples is not sent
    done = sttd("transcribe", "--url", whisper.url("/ws/stt"), str(file))
    assert jiwer.wer(SAMPLE, normalized(done.stdout)) < 0.1
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("content", [b"ID3 a song", b"RIFF\0\0\0\0WAVE", b""])
def test_transcribe_says_what_is_wrong_with_a_file(whisper: Daemon, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.wav"
    file.write_bytes(content)
    done = sttd("transcribe", "--url", whisper.url("/ws/stt"), str(file))
    assert done.returncode == 1
    assert str(file) in done.stderr
    assert "audio" in done.stderr


def piped(whisper: Daemon, shell: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `sttd` is the client of this daemon."""
    line = f'sttd() {{ {sys.executable} -m sttd transcribe --url {whisper.url("/ws/stt")} "$@"; }}; {shell}'
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        env=environment("/nonexistent", **extra),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_transcribe_in_pipes(whisper: Daemon) -> None:
    """A reader that is gone; standard input that is closed or empty."""
    gone = piped(whisper, "sttd | true")
    assert (gone.returncode, gone.stderr) == (0, "")
    for shell in ("sttd - <&-", "sttd - </dev/null"):
        empty = piped(whisper, shell)
        assert (empty.returncode, empty.stderr) == (70, "sttd: there was no audio to send\n")


def test_transcribe_prints_by_number_what_a_terminal_has_no_letters_for(
    vosk: Daemon, korean: list[Clip], tmp_path: Path
) -> None:
    file = tmp_path / "x.wav"
    soundfile.write(file, korean[0].samples, korean[0].rate)
    done = piped(vosk, f"sttd {file}", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u" in done.stdout


def transcribed_by(answer: Callable[[ServerConnection], None]) -> subprocess.CompletedProcess[str]:
    """`sttd transcribe` with the sample, and a daemon that does as it is told."""
    with serve(answer, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        done = sttd("transcribe", "--url", f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws/stt")
        server.shutdown()
        thread.join()
    return done


def test_transcribe_goes_on_after_an_error_that_does_not_end_the_session() -> None:
    def complain(connection: ServerConnection) -> None:
        connection.send('{"type": "error", "message": "the cloud is away"}')
        connection.send('{"type": "final", "text": "all the same"}')
        for message in connection:
            if isinstance(message, str):
                return

    done = transcribed_by(complain)
    assert (done.stdout, done.stderr, done.returncode) == ("all the same\n", "sttd: the cloud is away\n", 70)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/ws/stt?nonsense=1", "unknown setting 'nonsense'"),
        ("/ws/stt?language=xx", "'xx'"),
        ("/api/v1/ws", "its address ends in /ws/stt"),
        ("/api/v1/ws?nonsense=1", "closed the connection: 1008 unknown setting 'nonsense'"),
    ],
)
def test_transcribe_says_what_went_wrong(whisper: Daemon, path: str, message: str) -> None:
    done = sttd("transcribe", "--url", whisper.url(path))
    assert done.returncode == 70
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_transcribe_says_that_it_was_cut() -> None:
    def vanish(connection: ServerConnection) -> None:
        connection.recv()
        connection.socket.shutdown(socket.SHUT_RDWR)

    done = transcribed_by(vanish)
    assert done.returncode == 70
    assert "the connection to the daemon was cut" in done.stderr


def test_listening_comes_before_loading_and_takes_little_time(models: Path) -> None:
    started = time.monotonic()
    with running_daemon(models, ready=False) as daemon:
        assert daemon.get("/livez")[0] == 200
        assert time.monotonic() - started < 10


@pytest.mark.timeout(300)
def test_a_light_installation_says_which_extra_is_missing(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = str(tmp_path / "venv/bin/python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, str(ROOT)], check=True)
    installed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert "numpy" not in installed
    assert "vosk" not in installed
    for provider, extra in (("vosk", "vosk"), ("faster_whisper", "faster-whisper")):
        done = subprocess.run(
            [tmp_path / "venv/bin/sttd", "--provider", provider],
            capture_output=True,
            text=True,
            env=environment("/nonexistent"),
            timeout=20,
            check=False,
        )
        assert done.returncode == 69
        assert f"pip install 'sttd[{extra}]'" in done.stderr
        assert "Traceback" not in done.stderr


COMPLETED = [
    ("sttd tr", "transcribe"),
    ("sttd models pu", "pull"),
    ("sttd models pull vosk-small-k", "vosk-small-ko"),
    ("sttd --set endpoint.min_si", "endpoint.min_silence_ms="),
    ("sttd transcribe --fo", "--format"),
    ("sttd transcribe -f s", "srt"),
    ("sttd serve --provider v", "vosk"),
    ("sttd transcribe README", "README.md"),
]
IN_BASH = """source /dev/stdin
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
_shtab_sttd sttd "${COMP_WORDS[$COMP_CWORD]}" "${COMP_WORDS[$((COMP_CWORD - 1))]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
IN_FISH = "source -; complete -C $argv[1]"


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_completion(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")
    script = sttd("completion", shell).stdout
    for line, completed in COMPLETED:
        words = ["bash", "-c", IN_BASH, "bash", *line.split()] if shell == "bash" else ["fish", "-c", IN_FISH, line]
        done = subprocess.run(words, input=script, capture_output=True, text=True, check=True, cwd=ROOT)
        assert [found.split("\t")[0] for found in done.stdout.splitlines()] == [completed], line
        assert not done.stderr


def test_completion_in_zsh() -> None:
    if not shutil.which("zsh"):
        pytest.skip("there is no zsh here")
    check = "autoload -U compinit; compinit -D; source /dev/stdin; whence -w _shtab_sttd; whence -w _shtab_sttd_models"
    done = subprocess.run(
        ["zsh", "-f", "-c", check], input=sttd("completion", "zsh").stdout, capture_output=True, text=True, check=True
    )
    assert done.stdout == "_shtab_sttd: function\n_shtab_sttd_models: function\n"


def test_the_manual_page_has_every_command_and_option(tmp_path: Path) -> None:
    subprocess.run(["make", "-s", "man", f"MAN={tmp_path / 'sttd.1'}"], cwd=ROOT, check=True)
    page = (tmp_path / "sttd.1").read_text().replace("\\-", "-")
    shown = set(re.findall(r"--[a-z-]+", page))
    for command in ([], ["transcribe"], ["listen"], ["doctor"], ["bench"], ["models", "pull"], ["models", "import"]):
        helped = sttd(*command, "--help").stdout
        assert set(re.findall(r"--[a-z-]+", helped)) - {"--help"} <= shown, command
    for heading in ("EXIT STATUS", "ENVIRONMENT", "FILES"):
        assert f'.SH "{heading}"' in page or f".SH {heading}" in page
    if shutil.which("mandoc"):
        lint = subprocess.run(["mandoc", "-Tlint", "-W", "error", tmp_path / "sttd.1"], capture_output=True, text=True)
        assert not lint.stdout
