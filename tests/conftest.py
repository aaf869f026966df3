"""Models and recordings that tests run on; fetched once into `.cache/` of the checkout."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.speaking import speak
from tests.support import (
    CACHE,
    NATIVE_CHECK,
    Clip,
    Daemon,
    RawClient,
    environment,
    read_clip,
    running_daemon,
    shared_clips,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The same examples in every run; few where each costs fifty times as much (see check-native in the Makefile).
settings.register_profile("all", deadline=None, derandomize=True)
settings.register_profile("few", deadline=None, derandomize=True, max_examples=5)
settings.load_profile("few" if NATIVE_CHECK else "all")

KOREAN = (
    "안녕하세요 만나서 반갑습니다",
    "오늘 날씨가 정말 좋습니다",
    "거실 불을 켜 주세요",
    "내일 아침 일곱 시에 깨워 주세요",
    "지금 몇 시입니까",
    "음악을 틀어 주세요",
    "문을 닫아 주세요",
    "감사합니다 안녕히 가세요",
)
TWO_CITIES = """It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of
foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of light, it was the season
of darkness, it was the spring of hope, it was the winter of despair, we had everything before us, we had nothing before
us, we were all going direct to heaven, we were all going direct the other way. In short, the period was so far like the
present period that some of its noisiest authorities insisted on its being received, for good or for evil, in the
superlative degree of comparison only."""


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """The tests run in two processes, and what they need is fetched by one of them."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(*command: str) -> None:
    subprocess.run([sys.executable, "-m", *command], check=True, env=environment(CACHE / "models"))


@pytest.fixture(scope="session")
def models() -> Path:
    """A store with Whisper tiny.en and the Korean Vosk model, pulled with the command that users have."""
    with one_at_a_time():
        _run("sttd", "models", "pull", "tiny.en", "vosk-small-ko")
    return CACHE / "models"


@pytest.fixture(scope="session")
def still_models(models: Path) -> Path:
    """A store whose Vosk model adds no noise to its input.

    Kaldi dithers with one random generator for all recognizers of a process, so that the same audio does not always
    give the same text. Only without it can texts be compared to the letter.
    """
    store = CACHE / "still-models"
    target = store / "vosk/vosk-small-ko"
    with one_at_a_time():
        if not target.exists():
            shutil.copytree(models / "vosk/vosk-small-ko", target, copy_function=os.link)
            mfcc = target / "conf/mfcc.conf"
            text = mfcc.read_text()
            mfcc.unlink()
            mfcc.write_text(text.rstrip() + "\n--dither=0\n")
            manifest = target / ".sttd.json"  # its digests are those of the model as it was pulled
            manifest.unlink()
            manifest.write_text("{}")
    return store


@pytest.fixture(autouse=True)
def close_raw_clients() -> Iterator[None]:
    """Close the sockets that a test's raw clients have left open."""
    yield
    while RawClient.opened:
        RawClient.opened.pop().close()


@pytest.fixture(scope="session")
def multilingual_models(models: Path) -> Path:
    """The store with Whisper base too."""
    with one_at_a_time():
        _run("sttd", "models", "pull", "base")
    return models


@pytest.fixture(scope="session")
def two_cities() -> Clip:
    """44 s of read English, 48 kHz, from the package moonshine-voice."""
    folder = CACHE / "moonshine"
    wav = folder / "moonshine_voice/assets/two_cities.wav"
    with one_at_a_time():
        if not wav.exists():
            _run("pip", "download", "-q", "--no-deps", "--dest", str(folder), "moonshine-voice==0.1.5")
            with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
                for name in ("two_cities", "beckett"):
                    wheel.extract(f"moonshine_voice/assets/{name}.wav", folder)
    return read_clip(wav, TWO_CITIES)


@pytest.fixture(scope="session")
def beckett(two_cities: Clip) -> Clip:
    """A second, shorter recording from the same package."""
    return read_clip(two_cities.path.with_name("beckett.wav"), "")


@pytest.fixture(scope="session")
def korean() -> list[Clip]:
    """Korean speech: recordings, or where `../shared` is missing espeak-ng's voice."""
    clips = shared_clips("ko/")
    if clips:
        return clips
    folder = CACHE / "espeak"
    folder.mkdir(parents=True, exist_ok=True)
    with one_at_a_time():
        for number, text in enumerate(KOREAN):
            speak(text, "ko", folder / f"{number}.wav", 160)
        return [read_clip(folder / f"{number}.wav", text) for number, text in enumerate(KOREAN)]


@pytest.fixture(scope="session")
def whisper(models: Path) -> Iterator[Daemon]:
    """A daemon with the default provider."""
    with running_daemon(models) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def vosk(still_models: Path) -> Iterator[Daemon]:
    """A daemon with the vosk provider and the Korean model."""
    with running_daemon(still_models, "--provider", "vosk") as daemon:
        yield daemon
