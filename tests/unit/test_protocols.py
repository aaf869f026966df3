"""The wire protocols without I/O, and the scanner that finds Close frames."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sttd.config import SessionOptions
from sttd.events import (
    Audio,
    Configure,
    EndOfStream,
    Failed,
    Final,
    Flush,
    MessageDone,
    Partial,
    Ready,
    Unusable,
    Word,
)
from sttd.net.frames import MAX_CONTROL_FRAMES, MAX_FRAGMENTS, Flood, FrameScanner
from sttd.protocols.json_events import JsonEvents
from sttd.protocols.plain import PlainText
from tests.support import frame

OPTIONS = SessionOptions()


@pytest.mark.parametrize("protocol", [PlainText, JsonEvents])
def test_messages_become_commands(protocol: type[PlainText | JsonEvents]) -> None:
    receive = protocol().receive
    assert receive(b"\0\1") == Audio(b"\0\1")
    assert receive('{"type": "flush"}') == Flush()
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
    for event in (Ready(), Partial("a"), Failed("b"), Final("one."), Final("two.")):
        assert protocol.encode(event, OPTIONS) is None
    assert protocol.encode(MessageDone(), OPTIONS) == "one. two."
    assert protocol.encode(MessageDone(), OPTIONS) is None


def test_json_has_the_documented_events() -> None:
    protocol = JsonEvents()
    word = Word("hi", 0.5, 1.0, 0.9)

    def encode(event: Ready | Partial | Final | Failed | MessageDone, options: SessionOptions = OPTIONS) -> object:
        message = protocol.encode(event, options)
        return message and json.loads(message)

    assert encode(Ready()) == {"type": "ready"}
    assert encode(Partial("hé")) == {"type": "partial", "text": "hé"}
    assert encode(Partial("hé")) is None
    assert encode(Final("hi", (word,))) == {"type": "final", "text": "hi"}
    assert encode(Partial("hé")) == {"type": "partial", "text": "hé"}
    assert encode(Failed("no")) == {"type": "error", "message": "no"}
    assert encode(MessageDone()) is None
    assert encode(Partial("x"), replace(OPTIONS, partials=False)) is None
    assert encode(Final("hi", (word,)), replace(OPTIONS, words=True)) == {
        "type": "final",
        "text": "hi",
        "words": [{"word": "hi", "start": 0.5, "end": 1.0, "confidence": 0.9}],
    }


frames = st.tuples(st.sampled_from([0, 1, 2, 9, 10]), st.sampled_from([0, 1, 125, 126, 65535, 65536]), st.booleans())


@given(st.lists(frames, max_size=8), st.binary(max_size=9), st.lists(st.integers(0, 300_000), max_size=10))
def test_a_close_frame_is_found_however_the_stream_is_cut(
    before: list[tuple[int, int, bool]], reason: bytes, cuts: list[int]
) -> None:
    data = b"".join(frame(opcode, bytes(length), fin=fin) for opcode, length, fin in before)
    close = len(data)
    data += frame(8, reason)
    scanner = FrameScanner()
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for start, end in itertools.pairwise(edges):
        found = scanner.close_at(data[start:end], 0)
        if found is not None:
            assert start + found == close
            return
    raise AssertionError("the Close frame was passed over")


def test_unmasked_frames_are_followed_too() -> None:
    assert FrameScanner().close_at(b"\x82\x05hello\x88\x00", 0) == 7


@pytest.mark.parametrize(
    "flood", [frame(9, b"") * (MAX_CONTROL_FRAMES + 1), frame(1, b"", fin=False) * (MAX_FRAGMENTS + 1)]
)
def test_floods_are_noticed(flood: bytes) -> None:
    with pytest.raises(Flood):
        FrameScanner().close_at(flood, 0)


def test_an_honest_stream_is_no_flood() -> None:
    scanner = FrameScanner()
    for second in range(MAX_CONTROL_FRAMES * 3):
        assert scanner.close_at(frame(9, b"") + frame(10, b""), second) is None
    for _number in range(MAX_CONTROL_FRAMES):
        assert scanner.close_at(frame(2, b"data"), 0) is None
    assert not scanner.mid_message
    scanner.close_at(frame(2, b"data", fin=False), 0)
    assert scanner.mid_message
