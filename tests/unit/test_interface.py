"""The documented Python interface, alone, under Trio and under asyncio."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from sttd import STTFactory, STTInterface
from sttd.engines.whisper import FasterWhisperEngine
from sttd.errors import ConfigError, ModelMissing, RecognitionError
from sttd.providers.registry import plugin_class, provider_names
from tests.support import ROOT, Clip, at_16k_mono

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def fresh_factory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(STTFactory, "_instances", {})


async def use(provider: str, pcm: bytes) -> str:
    service = STTFactory.get_instance(provider)
    assert isinstance(service, STTInterface)
    assert STTFactory.get_instance(provider) is service
    assert not service.is_open()
    await service.initialize()
    assert service.is_open()
    text = await service.transcribe(pcm + b"\0")
    await service.close()
    assert not service.is_open()
    with pytest.raises(RecognitionError):
        await service.transcribe(pcm)
    return text


@pytest.fixture
def store(models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The models where a program that sets nothing looks for them."""
    (tmp_path / "sttd").mkdir()
    (tmp_path / "sttd/models").symlink_to(models)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


async def test_faster_whisper_under_trio(store: None, beckett: Clip) -> None:
    assert "fail" in (await use("faster_whisper", at_16k_mono(beckett))).lower()


def test_faster_whisper_under_asyncio(store: None, beckett: Clip) -> None:
    assert "fail" in asyncio.run(use("faster_whisper", at_16k_mono(beckett))).lower()


async def test_vosk_under_trio(store: None, korean: list[Clip]) -> None:
    assert await use("vosk", at_16k_mono(korean[0]))


async def test_who_initializes_twice_at_once_loads_once(store: None, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[float] = []
    load = FasterWhisperEngine.load

    def counted(self: FasterWhisperEngine) -> None:
        loads.append(time.monotonic())
        load(self)

    monkeypatch.setattr(FasterWhisperEngine, "load", counted)
    service = STTFactory.get_instance("faster_whisper")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.initialize)
        nursery.start_soon(service.initialize)
    await service.initialize()
    assert len(loads) == 1
    await service.close()


async def test_who_closes_while_it_loads_has_closed(store: None) -> None:
    service = STTFactory.get_instance("faster_whisper")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.initialize)
        await trio.testing.wait_all_tasks_blocked()
        await service.close()
    assert not service.is_open()
    with pytest.raises(RecognitionError):
        await service.transcribe(bytes(32000))


def test_one_service_in_two_loops(store: None, beckett: Clip) -> None:
    """A program may run asyncio several times, or Trio: the model stays."""
    service, pcm = STTFactory.get_instance("faster_whisper"), at_16k_mono(beckett)
    asyncio.run(service.initialize())
    assert "fail" in asyncio.run(service.transcribe(pcm)).lower()
    assert "fail" in trio.run(service.transcribe, pcm).lower()
    trio.run(service.close)


async def test_without_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(ModelMissing, match="No STT model"):
        await STTFactory.get_instance("faster_whisper").initialize()


def test_an_unknown_provider_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"^Unsupported STT provider: x$"):
        STTFactory.get_instance("x")


@pytest.mark.parametrize("provider", ["groq", "deepgram"])
async def test_a_cloud_provider_without_a_key_says_where_to_put_it(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(f"{provider.upper()}_API_KEY", raising=False)
    service = STTFactory.get_instance(provider)
    with pytest.raises(ConfigError, match=f"{provider.upper()}_API_KEY"):
        await service.initialize()
    assert not service.is_open()


def test_another_package_s_provider_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "tests/plugins"), *sys.path])
    assert "moody" in provider_names()
    assert issubclass(plugin_class("moody"), STTInterface)
    assert STTFactory.get_instance("moody").is_open() is False
