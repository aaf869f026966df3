"""The clouds through the documented Python interface."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sttd.config.config import Config, DeepgramConfig, GroqConfig
from sttd.errors import CloudError
from sttd.interface import Service
from tests.cloud.groq_standin import Status
from tests.support import KEY, Clip, at_16k_mono, normalized

if TYPE_CHECKING:
    from tests.cloud.deepgram_standin import DeepgramStandin
    from tests.cloud.groq_standin import GroqStandin


@pytest.fixture
def with_groq(groq: GroqStandin, monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    monkeypatch.setenv("SSL_CERT_FILE", str(groq.certificates.file))
    return Service(Config(provider="groq", groq=GroqConfig(base_url=groq.base_url)))


async def text(service: Service, pcm: bytes) -> str:
    assert not service.is_open()
    await service.initialize()
    assert service.is_open()
    try:
        return normalized(await service.transcribe(pcm))
    finally:
        await service.close()


async def test_groq_under_trio(with_groq: Service, two_cities: Clip) -> None:
    assert "best of times" in await text(with_groq, at_16k_mono(two_cities)[: 5 * 32000])


def test_groq_under_asyncio(with_groq: Service, two_cities: Clip) -> None:
    assert "best of times" in asyncio.run(text(with_groq, at_16k_mono(two_cities)[: 5 * 32000]))


async def test_a_failure_is_raised(groq: GroqStandin, with_groq: Service, two_cities: Clip) -> None:
    groq.faults.append(Status(401))
    with pytest.raises(CloudError, match="rejected the API key"):
        await text(with_groq, at_16k_mono(two_cities)[: 5 * 32000])


async def test_deepgram_under_trio(
    deepgram: DeepgramStandin, monkeypatch: pytest.MonkeyPatch, korean: list[Clip]
) -> None:
    monkeypatch.setenv("DEEPGRAM_API_KEY", KEY)
    monkeypatch.setenv("SSL_CERT_FILE", str(deepgram.certificates.file))
    config = Config(provider="deepgram", deepgram=DeepgramConfig(base_url=deepgram.base_url))
    assert await text(Service(config), at_16k_mono(korean[0]))
    assert deepgram.streams[0].closed_properly
