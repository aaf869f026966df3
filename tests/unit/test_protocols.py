"""The wire protocols without I/O, and the filter that WebSocket frames pass."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameDecoder, Opcode

from sttd.config.config import SessionOptions
from sttd.events import (
    Audio,
    Configure,
    EndOfStream,
    Event,
    Failed,
    Final,
    Flush,
    MessageDone,
    Partial,
    Problem,
    Ready,
    SessionOver,
    Unusable,
    Warned,
    Word,
)
from sttd.protocols.json_events import JsonEvents
from sttd.protocols.plain import PlainText
from sttd.wires.frames import MAX_CONTROL_FRAMES, MAX_FRAGMENTS, Flood, FrameFilter
from tests.support import frame

OPTIONS = SessionOptions()


@pytest.mark.parametrize("protocol", [PlainText, JsonEvents])
def test_messages_become_commands(protocol: type[PlainText | JsonEvents]) -> None:
    receive = protocol().receive
    assert receive(b"\0\1") == Audio(b"\0\1")
    assert receive('{"type": "flush"}') == Flush()
    assert receive(b'{"type": "flush"}') == Flush()
    assert receive(b' {"type": "eof"}\n') == Audio(b' {"type": "eof"}\n'), "it begins with a brace, or it is audio"
    assert receive(b'{"type": "eof"}\n') == EndOfStream()
    assert receive(b'{"type": "config", "words": true}') == Configure({"words": True})
    assert receive(b'{"type": "audio"}') == Audio(b'{"type": "audio"}')
    assert receive(b"{}" * 160) == Audio(b"{}" * 160)
    assert receive(' {"type":"eof"}\n') == EndOfStream()
    assert receive('{"type": "config", "words": true}') == Configure({"words": True})


@given(st.text() | st.binary())
def test_any_message_is_taken(message: str | bytes) -> None:
    assert isinstance(PlainText().receive(message), (Audio, Unusable, Flush, EndOfStream, Configure))


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_json_is_taken(value: object) -> None:
    assert isinstance(JsonEvents().receive(json.dumps(value)), (Unusable, Flush, EndOfStream, Configure))


def test_plain_joins_the_finals_of_one_message() -> None:
    protocol = PlainText()
    for event in (Ready(), Partial("a"), Failed("b", Problem.PROVIDER), Final("one."), Final("two.")):
        assert protocol.encode(event, OPTIONS) == ()
    assert protocol.encode(MessageDone(), OPTIONS) == ("one. two.",)
    assert protocol.encode(MessageDone(), OPTIONS) == ()


def test_plain_sends_what_is_gathered_when_the_session_ends() -> None:
    protocol = PlainText()
    assert protocol.encode(Final("one."), OPTIONS) == ()
    assert protocol.encode(SessionOver(), OPTIONS) == ("one.",)


def test_plain_sends_at_once_what_was_found_after_its_message_was_answered() -> None:
    protocol = PlainText()
    assert protocol.encode(Final("two."), OPTIONS) == ()
    assert protocol.encode(Final("three.", late=True), OPTIONS) == ("two. three.",), "in their order"
    assert protocol.encode(MessageDone(), OPTIONS) == ()
    assert protocol.encode(Final("four.", late=True), OPTIONS) == ("four.",)


def test_json_has_the_documented_events() -> None:
    protocol = JsonEvents()
    word = Word("hi", 0.5, 1.0, 0.9)

    def encode(event: Event, options: SessionOptions = OPTIONS) -> object:
        return [json.loads(message) for message in protocol.encode(event, options)]

    assert encode(Ready()) == [{"type": "ready"}]
    assert encode(Partial("hé")) == [{"type": "partial", "text": "hé"}]
    assert encode(Partial("hé")) == []
    assert encode(Final("hi", (word,))) == [{"type": "final", "text": "hi"}]
    assert encode(Partial("hé")) == [{"type": "partial", "text": "hé"}]
    assert encode(Failed("no", Problem.IDLE, fatal=True)) == [{"type": "error", "message": "no"}]
    assert encode(MessageDone()) == []
    assert encode(Partial("x"), replace(OPTIONS, partials=False)) == []
    assert encode(Final("hi", (word,)), replace(OPTIONS, words=True)) == [
        {
            "type": "final",
            "text": "hi",
            "words": [{"word": "hi", "start": 0.5, "end": 1.0, "confidence": 0.9}],
        }
    ]
    assert encode(Final("hi", lag=2.5, engine="vosk"), replace(OPTIONS, lag=True, engine=True)) == [
        {
            "type": "final",
            "text": "hi",
            "lag": 2.5,
            "engine": "vosk",
            "fallback_from": None,
        }
    ]
    assert encode(Failed("no", Problem.IDLE, fatal=True), replace(OPTIONS, codes=True)) == [
        {
            "type": "error",
            "message": "no",
            "code": "idle",
            "fatal": True,
        }
    ]
    assert encode(Warned("loud")) == []
    assert encode(Warned("loud"), replace(OPTIONS, warnings=True)) == [{"type": "warning", "message": "loud"}]


frames = st.tuples(st.sampled_from([0, 1, 2, 9, 10]), st.sampled_from([0, 1, 125, 126, 65535, 65536]), st.booleans())


def fed(data: bytes, cuts: list[int], *, part: int = 1 << 20, longest: int = 1 << 30) -> tuple[bytes, FrameFilter]:
    frames = FrameFilter(part, longest)
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    return b"".join(frames.feed(data[start:end], 0) for start, end in itertools.pairwise(edges)), frames


@given(st.lists(frames, max_size=8), st.binary(max_size=9), st.lists(st.integers(0, 300_000), max_size=10))
def test_a_close_frame_is_kept_back_however_the_stream_is_cut(
    before: list[tuple[int, int, bool]], reason: bytes, cuts: list[int]
) -> None:
    data = b"".join(frame(opcode, bytes(length), fin=fin) for opcode, length, fin in before)
    passed, filtered = fed(data + frame(8, reason) + b"more", cuts)
    assert passed == data
    assert bytes(filtered.held or b"") == frame(8, reason) + b"more"


messages = st.tuples(st.sampled_from([1, 2]), st.lists(st.binary(max_size=70_000), min_size=1, max_size=4))


@settings(deadline=None)
@given(
    st.lists(messages, max_size=5),
    st.binary(min_size=4, max_size=4),
    st.lists(st.integers(0, 300_000), max_size=9),
    st.sampled_from([50, 1000, 66_000]),
)
@example([(2, [bytes(75), bytes(75)])], b"mask", [], 50)
def test_long_binary_messages_come_in_parts(
    sent: list[tuple[int, list[bytes]]], mask: bytes, cuts: list[int], limit: int
) -> None:
    """A WebSocket library reads the parts; pings between the fragments stay where they were."""
    data = b""
    for opcode, fragments in sent:
        for number, payload in enumerate(fragments):
            last = number == len(fragments) - 1
            data += frame(opcode if number == 0 else 0, payload, fin=last, mask=mask) + frame(9, b"ping", mask=mask)
    passed, filtered = fed(data, cuts, part=limit)
    reader = FrameDecoder(client=False)
    reader.receive_bytes(passed)
    received: list[tuple[int, bytes]] = []
    parts: list[bytes] = []
    while piece := reader.process_buffer():
        if piece.opcode == Opcode.PING:
            continue
        if piece.opcode != Opcode.CONTINUATION:
            kind, part = piece.opcode, b""
        assert isinstance(piece.payload, bytes)
        part += piece.payload
        if not (piece.frame_finished and piece.message_finished):
            continue
        parts.append(part)
        if kind == Opcode.TEXT or filtered.parts.popleft():
            received.append((kind, b"".join(parts)))
            parts.clear()
        assert kind == Opcode.TEXT or len(part) <= limit
    assert received == [(opcode, b"".join(fragments)) for opcode, fragments in sent]
    assert not filtered.parts
    assert not filtered.mid_message


def test_a_message_that_is_too_long_is_left_for_the_library_to_refuse() -> None:
    data = frame(2, bytes(5000)) + frame(2, bytes(5001))
    passed, _filtered = fed(data, [], part=1000, longest=5000)
    assert passed.endswith(frame(2, bytes(5001)))
    assert not passed.startswith(frame(2, bytes(5000)))


def test_unmasked_frames_are_followed_too() -> None:
    assert fed(b"\x82\x05hello\x88\x00", [])[0] == b"\x82\x05hello"


@pytest.mark.parametrize(
    "flood",
    [
        frame(9, b"") * (MAX_CONTROL_FRAMES + 1),
        frame(1, b"", fin=False) * (MAX_CONTROL_FRAMES + 1),
        frame(1, b"x", fin=False) + frame(0, b"x", fin=False) * MAX_FRAGMENTS,
    ],
)
def test_floods_are_noticed(flood: bytes) -> None:
    with pytest.raises(Flood):
        fed(flood, [])


def test_an_honest_stream_is_no_flood() -> None:
    frames = FrameFilter(1000, 1000)
    for second in range(MAX_CONTROL_FRAMES * 3):
        frames.feed(frame(9, b"") + frame(10, b""), second)
    for _number in range(MAX_CONTROL_FRAMES):
        frames.feed(frame(2, b"data"), 0)
    assert not frames.mid_message
    frames.feed(frame(2, b"data", fin=False), 0)
    assert frames.mid_message
