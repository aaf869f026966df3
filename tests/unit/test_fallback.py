"""The recognizer that stands behind a cloud's: order, and audio to the byte."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from sttd.clouds.deepgram import Deepgram
from sttd.clouds.groq import Groq
from sttd.config.config import Config, DeepgramConfig, SessionOptions
from sttd.errors import ModelMissing
from sttd.events import Event, Failed, Final, Problem
from sttd.providers.cloud import CloudProvider
from sttd.recognizers.base import CloudRecognizer, Recognizer
from sttd.recognizers.fallback import Breaker, FallbackRecognizer
from tests.unit.fakes import Behaviour, FakeProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sttd.recognizers.base import Emit


class Listener(Recognizer):
    """Says how many bytes it heard."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._heard = bytearray()

    async def start(self, at: float) -> None:
        pass

    async def accept(self, pieces: Sequence[bytes], *, confidence: float = 1.0) -> None:
        for piece in pieces:
            self._heard += piece

    async def finish(self, *, settled: bool = False, confidence: float = 1.0) -> None:
        self._emit(Final(str(len(self._heard))))


@asynccontextmanager
async def listener(emit: Emit) -> AsyncIterator[Recognizer]:
    yield Listener(emit)


class Late(CloudRecognizer):
    """A final of an earlier utterance is to come."""

    def __init__(self) -> None:
        self.supervisor: FallbackRecognizer

    async def start(self, at: float) -> None:
        raise AssertionError("the breaker is open")

    accept = finish = start  # type: ignore[assignment]

    def take_pending(self) -> tuple[float, bytes]:
        return 0.0, b""

    async def drain(self) -> None:
        await trio.sleep(0.05)
        self.supervisor.emit_from_cloud(Final("earlier"))


async def test_the_fallback_s_model_is_loaded_once_it_is_there_without_any_client(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "x" * 20)
    behaviour = Behaviour(load_s=0.1, fails_to_load=ModelMissing())
    fallback = FakeProvider(behaviour)
    provider = CloudProvider(Config(provider="groq"), Groq, fallback)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(provider.run)
        await trio.sleep(60)
        assert fallback.status
        behaviour.fails_to_load = None
        await trio.sleep(6)
        assert not fallback.status
        nursery.cancel_scope.cancel()
    await provider.aclose()


def texts(events: Sequence[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Final)]


async def test_the_local_provider_waits_for_what_was_said_before() -> None:
    events: list[Event] = []
    breaker = Breaker(10)
    breaker.failed(trio.current_time())
    primary = Late()
    recognizer = primary.supervisor = FallbackRecognizer("groq", breaker, events.append, listener, "vosk")
    recognizer.primary = primary
    await recognizer.start(0)
    await recognizer.accept([bytes(100)])
    await recognizer.finish()
    assert texts(events) == ["earlier", "100"]


async def test_no_byte_is_lost_when_the_cloud_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPGRAM_API_KEY", "x")
    cloud = Deepgram(Config(deepgram=DeepgramConfig(base_url="ws://127.0.0.1:9", deadline_s=0.5)))
    events: list[Event] = []
    recognizer = FallbackRecognizer("deepgram", Breaker(10), events.append, listener, "vosk")
    async with cloud.recognizer(SessionOptions(), recognizer) as recognizer.primary:
        await recognizer.start(0)
        for _tenth in range(20):
            await recognizer.accept([bytes(3200)])
            await trio.sleep(0.05)
        await recognizer.finish()
    assert texts(events) == [str(20 * 3200)]


@pytest.mark.parametrize(
    "answer",
    [b"garbage\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", b""],
    ids=["garbage", "no accept", "nothing"],
)
async def test_what_answers_as_no_server_of_deepgram_would_is_a_failure_of_the_cloud(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(answer)

    monkeypatch.setenv("DEEPGRAM_API_KEY", "x")
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        cloud = Deepgram(Config(deepgram=DeepgramConfig(base_url=f"ws://127.0.0.1:{port}", deadline_s=0.5)))
        events: list[Event] = []
        recognizer = FallbackRecognizer("deepgram", Breaker(10), events.append, None, "")
        async with cloud.recognizer(SessionOptions(), recognizer) as recognizer.primary:
            await recognizer.start(0)
            await recognizer.accept([bytes(32000)])
            await recognizer.finish()
        # trio-websocket does not notice an end before the handshake; then time is what tells.
        message = "Deepgram cannot be reached" if answer else "Deepgram did not answer in 0.5 s"
        assert events == [Failed(message, Problem.PROVIDER)]
        nursery.cancel_scope.cancel()
