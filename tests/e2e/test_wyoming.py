"""Wyoming against a real daemon, with the client classes of its own package."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from wyoming.asr import Transcribe, Transcript, TranscriptChunk
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.info import AsrProgram, Describe, Info

from tests.support import Clip, Daemon, at_16k_mono, finals, json_events, pieces, running_daemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK_MS = 64
"""What Home Assistant sends at a time."""


def uri(daemon: Daemon) -> str:
    found = re.search(r"Wyoming\s+(\S+)", "".join(daemon.lines))
    assert found
    return found[1]


@pytest.fixture(scope="module")
def english(models: Path) -> Iterator[Daemon]:
    with running_daemon(models, "--set", "wyoming.listen=127.0.0.1:0") as daemon:
        yield daemon


@pytest.fixture(scope="module")
def korean_vosk(still_models: Path) -> Iterator[Daemon]:
    with running_daemon(still_models, "--provider", "vosk", "--set", "wyoming.listen=127.0.0.1:0") as daemon:
        yield daemon


async def program(client: AsyncClient) -> AsrProgram:
    await client.write_event(Describe().event())
    event = await client.read_event()
    assert event is not None
    return Info.from_event(event).asr[0]


async def heard(client: AsyncClient, pcm: bytes, language: str, rate: int = 16000, width: int = 2) -> tuple[str, str]:
    """The transcript of one utterance, and what came of it before."""
    await client.write_event(Transcribe(language=language).event())
    await client.write_event(AudioStart(rate=rate, width=width, channels=1).event())
    size = rate * width * CHUNK_MS // 1000
    for start in range(0, len(pcm), size):
        await client.write_event(
            AudioChunk(rate=rate, width=width, channels=1, audio=pcm[start : start + size]).event()
        )
    await client.write_event(AudioStop().event())
    pieces_of_it = ""
    while (event := await client.read_event()) is not None:
        assert not Error.is_type(event.type), event.data
        if TranscriptChunk.is_type(event.type):
            pieces_of_it += TranscriptChunk.from_event(event).text
        if Transcript.is_type(event.type):
            return Transcript.from_event(event).text, pieces_of_it
    raise AssertionError("it never answered")


async def same_text(daemon: Daemon, clips: list[Clip], language: str) -> None:
    """Over one connection, one recording after the other: what `/ws/stt` says, character for character."""
    async with AsyncClient.from_uri(uri(daemon)) as client:
        found = await program(client)
        assert language in found.models[0].languages
        assert found.models[0].installed
        for clip in clips:
            pcm = at_16k_mono(clip)
            with daemon.json() as other:
                wanted = " ".join(finals(json_events(other, pcm, CHUNK_MS)))
            assert wanted
            assert await heard(client, pcm, language) == (wanted, wanted)
        assert await heard(client, b"", language) == ("", "")
        assert await heard(client, bytes(32000), language) == ("", "")


def test_faster_whisper(english: Daemon, two_cities: Clip, beckett: Clip) -> None:
    asyncio.run(same_text(english, [beckett, two_cities], "en"))


def test_vosk(korean_vosk: Daemon, korean: list[Clip]) -> None:
    asyncio.run(same_text(korean_vosk, korean[:2], "ko"))


@pytest.mark.parametrize(("rate", "width"), [(48000, 4), (22050, 2), (8000, 2)])
def test_formats(english: Daemon, beckett: Clip, rate: int, width: int) -> None:
    mono = beckett.samples[:, 0].astype(float)
    times = np.arange(0, len(mono) / beckett.rate, 1 / rate)
    samples = np.interp(times, np.arange(len(mono)) / beckett.rate, mono)
    pcm = (samples * (1 if width == 2 else 65536)).astype("<i2" if width == 2 else "<i4").tobytes()

    async def text() -> str:
        async with AsyncClient.from_uri(uri(english)) as client:
            return (await heard(client, pcm, "en-US", rate, width))[0]

    assert "fail" in asyncio.run(text()).lower()


def test_a_language_that_the_model_does_not_know_is_told_and_answered(english: Daemon) -> None:
    async def told() -> list[str]:
        async with AsyncClient.from_uri(uri(english)) as client:
            await client.write_event(Transcribe(language="ko").event())
            await client.write_event(AudioStart(rate=16000, width=2, channels=1).event())
            await client.write_event(AudioStop().event())
            events = [await client.read_event() for _ in range(2)]
            assert all(events)
            return [f"{event.type} {event.data['text']}" for event in events if event is not None]

    error, transcript = asyncio.run(told())
    assert error.startswith("error language: the model tiny.en does not understand 'ko'")
    assert transcript == "transcript "


def test_a_unix_socket_is_made_anew_where_nobody_listens(models: Path, beckett: Clip, tmp_path: Path) -> None:
    path = tmp_path / "wyoming.sock"
    address = ("--set", f"wyoming.listen=unix:{path}")
    with running_daemon(models, *address) as daemon:
        assert uri(daemon) == f"unix://{path}"
        daemon.process.kill()
        daemon.process.wait()
    assert path.is_socket()
    with running_daemon(models, *address) as daemon:

        async def text() -> str:
            async with AsyncClient.from_uri(uri(daemon)) as client:
                return (await heard(client, at_16k_mono(beckett), "en"))[0]

        assert "fail" in asyncio.run(text()).lower()


def test_an_early_answer_comes_before_the_end_of_the_audio(models: Path, beckett: Clip) -> None:
    settings = ("--set", "wyoming.listen=127.0.0.1:0", "--set", "wyoming.early=true")

    async def text(daemon: Daemon) -> str:
        async with AsyncClient.from_uri(uri(daemon)) as client:
            assert not (await program(client)).requires_external_vad
            await client.write_event(AudioStart(rate=16000, width=2, channels=1).event())
            answer = asyncio.create_task(client.read_event())
            for piece in pieces(at_16k_mono(beckett) + bytes(320000), CHUNK_MS):
                await client.write_event(AudioChunk(rate=16000, width=2, channels=1, audio=piece).event())
                await asyncio.sleep(CHUNK_MS / 4000)
                if answer.done():
                    break
            else:
                raise AssertionError("no answer before the end")
            while (event := await client.read_event()) is not None and not Transcript.is_type(event.type):
                pass
            assert event is not None
            return Transcript.from_event(event).text

    with running_daemon(models, *settings) as daemon:
        assert asyncio.run(text(daemon))
