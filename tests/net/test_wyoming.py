"""Wyoming's front door, over real sockets, with a provider that only pretends."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from sttd.audio.pipeline import prepare
from sttd.config.config import Config, LimitsConfig, SessionOptions, WyomingConfig
from sttd.errors import ModelError, ModelMissing
from sttd.http.admission import Admission
from sttd.metrics import REGISTRY
from sttd.session.queues import SharedBudget
from sttd.session.session import Session
from sttd.wires.wyoming import EventReader, WyomingEvent, encode_event
from sttd.wyoming import WyomingDoor
from tests.support import Clip, at_16k_mono
from tests.unit.fakes import Behaviour, FakeProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from sttd.protocols.base import Protocol
    from sttd.wires.base import Channel

FORMAT = {"rate": 16000, "width": 2, "channels": 1}


class Client:
    """A client's end of a connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._reader = EventReader()

    async def send(self, name: str, payload: bytes = b"", /, **data: Any) -> None:
        if not payload:
            await self.stream.send_all(encode_event(name, data))
            return
        head = {"type": name, "data": data, "payload_length": len(payload)}
        await self.stream.send_all(json.dumps(head).encode() + b"\n" + payload)

    async def receive(self) -> WyomingEvent | None:
        """None at the end of the connection."""
        with trio.fail_after(20):
            while (event := self._reader.next_event()) is None:
                data = await self.stream.receive_some()
                if not data:
                    return None
                self._reader.feed(data)
        return event

    async def until(self, name: str) -> list[tuple[str, Any]]:
        """The types and texts of all events up to that one."""
        found: list[tuple[str, Any]] = []
        while not found or found[-1][0] != name:
            event = await self.receive()
            assert event is not None, found
            found.append((event.type, event.data.get("text")))
        return found

    async def say(self, pcm: bytes, audio: Mapping[str, int] = FORMAT, *, stop: bool = True) -> None:
        form = {**FORMAT, **audio}
        await self.send("audio-start", **form)
        for place in range(0, len(pcm), 3200):
            await self.send("audio-chunk", pcm[place : place + 3200], **form)
        if stop:
            await self.send("audio-stop")


class Served:
    """A door, its provider, and clients."""

    def __init__(self, nursery: trio.Nursery, provider: FakeProvider, early: bool, busy: str, **limits: float) -> None:
        given = LimitsConfig(**limits)  # type: ignore[arg-type]
        self.config = Config(provider="fake", limits=given, wyoming=WyomingConfig(early=early))
        self.sessions: list[Session] = []
        self.clients: list[Client] = []
        self.provider = provider
        self._nursery = nursery
        self.door = WyomingDoor(self.config, provider, Admission(given, lambda: busy), self._serve)

    async def _serve(self, protocol: Protocol, query: str, channel: Channel) -> None:
        session = Session(channel, protocol, self.provider, self.config, query, SharedBudget(0))
        self.sessions.append(session)
        await session.run()

    async def client(self) -> Client:
        ours, theirs = trio.socket.socketpair()
        self._nursery.start_soon(self.door.serve, trio.SocketStream(ours))
        self.clients.append(Client(trio.SocketStream(theirs)))
        return self.clients[-1]


@asynccontextmanager
async def served(
    behaviour: Behaviour | None = None, *, early: bool = False, busy: str = "", **limits: float
) -> AsyncIterator[Served]:
    prepare(SessionOptions())
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            here = Served(nursery, FakeProvider(behaviour), early, busy, **limits)
            try:
                yield here
            finally:
                for client in here.clients:
                    await trio.aclose_forcefully(client.stream)
                nursery.cancel_scope.cancel()


@pytest.fixture(scope="module")
def speech(two_cities: Clip) -> bytes:
    return at_16k_mono(two_cities)[12 * 3200 : 46 * 3200]


async def test_describe_is_answered_while_the_model_loads(speech: bytes) -> None:
    async with served(Behaviour(load_s=1000.0)) as here:
        client = await here.client()
        await client.send("describe")
        with trio.fail_after(0.5):
            event = await client.receive()
        assert event is not None
        assert event.type == "info"
        program = event.data["asr"][0]
        assert program["models"][0]["languages"] == ["en"]
        assert (program["supports_transcript_streaming"], program["requires_external_vad"]) == (True, True)
        await client.say(speech, stop=False)
        await client.send("ping", text="x")
        await client.send("describe")
        with trio.fail_after(0.5):
            assert await client.until("info") == [("pong", "x"), ("info", None)]


async def test_several_utterances_over_one_connection(speech: bytes) -> None:
    async with served(Behaviour(finals=["one", "two", "three"])) as here:
        client = await here.client()
        for text in ("one", "two"):
            await client.send("transcribe", language="en")
            await client.say(speech)
            found = await client.until("transcript-stop")
            assert found[:1] + found[2:] == [
                ("transcript-start", None),
                ("transcript", text),
                ("transcript-stop", None),
            ]
        await client.send("audio-stop")
        assert await client.until("transcript") == [("transcript", "")]
        await client.send("what-is-that")
        await client.send("audio-chunk", speech, **FORMAT)  # without a start
        await client.send("audio-stop")
        assert ("transcript", "three") in await client.until("transcript-stop")


async def test_formats_may_change_from_chunk_to_chunk(speech: bytes) -> None:
    async with served() as here:
        client = await here.client()
        await client.say(speech, stop=False)
        stereo = b"".join(speech[place : place + 2] * 2 for place in range(0, len(speech), 2))
        await client.send("audio-chunk", stereo, rate=16000, width=2, channels=2)
        await client.send("audio-stop")
        assert (await client.until("transcript"))[-1] == ("transcript", "said said")


@pytest.mark.parametrize(
    ("behaviour", "form", "code"),
    [
        (Behaviour(fails_to_load=ModelMissing()), {}, "no_model"),
        (Behaviour(fails_to_load=ModelError("a file is damaged")), {}, "model_failed"),
        (Behaviour(fails_in="accept"), {}, "recognizer_failed"),
        (Behaviour(), {"rate": 12345}, "bad_option"),
        (Behaviour(), {"width": 9}, "bad_option"),
        (Behaviour(), {"channels": 0}, "bad_option"),
    ],
)
async def test_what_fails_is_told_and_answered_so_that_nobody_waits_for_ever(
    behaviour: Behaviour, form: dict[str, int], code: str, speech: bytes
) -> None:
    async with served(behaviour) as here:
        client = await here.client()
        await client.say(speech, form)
        error = await client.receive()
        assert error is not None
        assert (error.type, error.data["code"]) == ("error", code)
        assert await client.until("transcript") == [("transcript", "")]
        await client.send("ping")
        assert await client.until("pong"), "the connection goes on"


async def test_who_is_refused_is_answered_too(speech: bytes) -> None:
    async with served(busy="Too much to do.") as here:
        client = await here.client()
        await client.say(speech)
        assert await client.until("transcript") == [("error", "Too much to do."), ("transcript", "")]
        await client.send("audio-stop")
        assert await client.until("transcript") == [("transcript", "")]


async def test_an_early_answer(speech: bytes) -> None:
    async with served(early=True) as here:
        client = await here.client()
        await client.send("describe")
        event = await client.receive()
        assert event is not None
        assert event.data["asr"][0]["requires_external_vad"] is False
        for _ in range(2):
            await client.say(speech + bytes(64000), stop=False)
            assert (await client.until("transcript-stop"))[-2] == ("transcript", "said"), "before the audio has ended"
            for _ in range(20):
                await client.send("audio-chunk", bytes(3200), **FORMAT)
            await client.send("audio-stop")
        await client.send("ping")
        assert await client.until("pong") == [("pong", None)], "and the rest of the audio gets no answer"


async def test_who_vanishes_ends_its_session_alone(speech: bytes) -> None:
    async with served() as here:
        client, other = await here.client(), await here.client()
        await client.say(speech, stop=False)
        await client.stream.aclose()
        await other.say(speech)
        assert (await other.until("transcript"))[-1] == ("transcript", "said")
        while here.door._admission.open > 1:  # noqa: ASYNC110
            await trio.sleep(0.01)


@pytest.mark.parametrize("mid_utterance", [False, True])
async def test_what_is_no_wyoming_is_told_and_cut(mid_utterance: bool, speech: bytes) -> None:
    async with served() as here:
        client = await here.client()
        if mid_utterance:
            await client.say(speech, stop=False)
        await client.stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
        found = await client.until("error")
        assert found[-1][1].startswith("This is not understood as Wyoming")
        if mid_utterance:
            assert ("transcript", "said") in found, "what was said before is answered"
        while await client.receive() is not None:
            pass


async def test_letters_that_are_none_do_no_harm(speech: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with served() as here:
        client = await here.client()
        await client.stream.send_all(b'{"type": "ping", "data": {"text": "\\ud800"}}\n')
        assert await client.until("pong") == [("pong", "?")]
        await client.stream.send_all(b'{"type": "transcribe", "data": {"language": "\\ud800"}}\n')
        await client.say(speech)
        assert (await client.until("transcript"))[-1][0] == "transcript"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_limits(speech: bytes) -> None:
    async with served(connections=1, head_s=0.2, idle_s=0.4, audio_s=1.0) as here:
        client = await here.client()
        assert await client.receive() is None, "it said nothing"
        await trio.testing.wait_all_tasks_blocked()
        client = await here.client()
        await client.send("ping")
        await client.until("pong")
        other = await here.client()
        await other.send("describe")
        assert (await other.until("error"))[0][1].startswith("Too many connections")
        await other.stream.aclose()
        await client.say(speech)
        told = [name for name, _ in await client.until("transcript-stop")]
        assert told[-3:] == ["error", "transcript", "transcript-stop"], "its quota"
        assert await client.receive() is None, "it was idle"


async def test_a_drain(speech: bytes) -> None:
    async with served() as here:
        idle, busy = await here.client(), await here.client()
        await idle.send("ping")
        await idle.until("pong")
        await busy.say(speech, stop=False)
        while not (here.provider.made and here.provider.made[0].heard):  # noqa: ASYNC110
            await trio.sleep(0.01)
        here.door.drain()
        here.sessions[0].drain(5.0)
        assert await idle.receive() is None
        assert ("transcript", "said") in await busy.until("transcript-stop"), "what was said is answered"
        assert await busy.until("error") == [("error", "sttd is stopping.")], "and that it may be half of it"
        assert await busy.receive() is None


def hits(limit: str) -> float:
    return REGISTRY.get_sample_value("sttd_limits_hit_total", {"limit": limit}) or 0.0


async def test_a_client_that_does_not_read_is_cut(speech: bytes) -> None:
    before = hits("send_s")
    async with served(send_s=0.2) as here:
        client = await here.client()
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012
            while True:
                await client.send("describe")
    assert hits("send_s") == before + 1
