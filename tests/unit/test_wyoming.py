"""Wyoming without a socket: events from bytes, a session's events to the client's, and who may connect."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sttd.config.config import AccessConfig, Config, SessionOptions, WyomingConfig
from sttd.errors import ConfigError
from sttd.events import Audio, Configure, Event, Failed, Final, MessageDone, Partial, Problem, Ready, SessionOver
from sttd.protocols.wyoming import Wyoming, format_options
from sttd.wires.wyoming import LINE_BYTES, PAYLOAD_BYTES, EventReader, Malformed, WyomingEvent, encode_event
from sttd.wyoming import Peers

names = st.text(max_size=20)
data = st.dictionaries(names, st.none() | st.integers() | st.text(max_size=20) | st.lists(st.booleans(), max_size=3))
events = st.lists(st.tuples(names, data, st.binary(max_size=60), st.booleans()), max_size=6)


def read(pieces: list[bytes]) -> list[WyomingEvent]:
    reader, found = EventReader(), []
    for piece in pieces:
        reader.feed(piece)
        while (event := reader.next_event()) is not None:
            found.append(event)
    assert not reader.mid_event
    return found


def encoded(name: str, fields: dict[str, Any], payload: bytes, inline: bool) -> bytes:
    """In both ways in which data may be written."""
    head: dict[str, Any] = {"type": name, "payload_length": len(payload)}
    if inline:
        return json.dumps({**head, "data": fields}).encode() + b"\n" + payload
    body = json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")
    return json.dumps({**head, "data_length": len(body)}).encode() + b"\n" + body + payload


@given(events, st.lists(st.integers(1, 50), min_size=1))
def test_a_stream_is_the_same_events_however_it_is_cut(
    sent: list[tuple[str, dict[str, Any], bytes, bool]], sizes: list[int]
) -> None:
    stream = b"".join(encoded(*event) for event in sent)
    pieces: list[bytes] = []
    place = 0
    while place < len(stream):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(stream[place : place + size])
        place += size
    whole = read([stream])
    assert read(pieces) == whole
    assert [(event.type, event.payload) for event in whole] == [(name, payload) for name, _, payload, _ in sent]


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode) | st.builds(encode_event, names, data))
def test_whatever_comes_is_events_or_malformed(stream: bytes) -> None:
    reader = EventReader()
    with suppress(Malformed):
        for place in range(0, len(stream), 7):
            reader.feed(stream[place : place + 7])
            while reader.next_event() is not None:
                pass


def test_data_behind_the_line_is_merged_over_that_in_it() -> None:
    stream = b'{"type": "a", "data": {"x": 1, "y": 1}, "data_length": 8}\n{"y": 2}{"type":"b","payload_length":null}\n'
    assert read([stream]) == [WyomingEvent("a", {"x": 1, "y": 2}), WyomingEvent("b")]
    assert read([encode_event("transcript", {"text": "안녕"})]) == [WyomingEvent("transcript", {"text": "안녕"})]


@pytest.mark.parametrize(
    "stream",
    [
        b"\n",
        b"GET / HTTP/1.1\r\n",
        b"[]\n",
        b'{"type": 5}\n',
        b'{"data": {}}\n',
        b'{"type": "a", "data": []}\n',
        b'{"type": "a", "data_length": -1}\n',
        b'{"type": "a", "data_length": true}\n',
        b'{"type": "a", "data_length": 1e9}\n',
        b'{"type": "a", "data_length": 2}\n[]',
        f'{{"type": "a", "payload_length": {PAYLOAD_BYTES + 1}}}\n'.encode(),
        b" " * LINE_BYTES,
        b"[" * 50_000 + b"\n",
        b"\xff\n",
    ],
)
def test_what_is_no_event_is_malformed(stream: bytes) -> None:
    with pytest.raises(Malformed):
        read([stream])


def said(protocol: Wyoming, *happened: Event) -> list[tuple[str, Any]]:
    sent = [json.loads(message) for event in happened for message in protocol.encode(event, SessionOptions())]
    return [(event["type"], event["data"].get("text")) for event in sent]


def test_an_utterance_is_answered_by_one_transcript() -> None:
    happened = (Ready(), Partial("a"), Final("one"), MessageDone(), Final("two"), SessionOver())
    assert said(Wyoming(), *happened) == [
        ("transcript-start", None),
        ("transcript-chunk", "one"),
        ("transcript-chunk", " two"),
        ("transcript", "one two"),
        ("transcript-stop", None),
    ]
    assert said(Wyoming(early=True), *happened) == [
        ("transcript-start", None),
        ("transcript-chunk", "one"),
        ("transcript", "one"),
        ("transcript-stop", None),
    ]
    assert said(Wyoming(), SessionOver()) == [("transcript", "")]
    failed = Failed("no model", Problem.NO_MODEL, fatal=True)
    assert said(Wyoming(), failed, SessionOver()) == [("error", "no model"), ("transcript", "")]


def test_formats() -> None:
    assert Wyoming().receive(b"\x7b\x7d") == Audio(b"{}")
    start = json.dumps({"type": "audio-start", "data": {"rate": 48000, "width": 4, "channels": 2}})
    wanted = {"sample_rate": 48000, "encoding": "pcm_s32le", "channels": 2}
    assert Wyoming().receive(start) == Configure(wanted)
    assert format_options({}) == {}
    assert format_options({"width": [7]}) == {"encoding": "[7]"}, "for the options to refuse"


def peers(*networks: str, everybody: bool = False) -> Peers:
    access = AccessConfig(allow_unauthenticated=everybody)
    return Peers.read(Config(wyoming=WyomingConfig(peers=networks), access=access))


def test_who_may_connect() -> None:
    home = peers("192.168.1.0/24", "fd00::/8")
    for address in ("127.0.0.1", "::1", "", "192.168.1.7", "::ffff:192.168.1.7", "fd00::7", "::ffff:127.0.0.1"):
        assert home.admit(address), address
    for address in ("192.168.2.7", "::ffff:192.168.2.7", "2001:db8::1", "fe80::1%eth0", "?"):
        assert not home.admit(address), address
        assert peers(everybody=True).admit(address)
        assert not peers().admit(address)
    assert not peers("192.168.1.0/24", everybody=True).admit("192.168.2.7"), "networks that are named are the limit"
    home.check_address("0.0.0.0")
    peers().check_address("localhost")
    peers(everybody=True).check_address("0.0.0.0")
    with pytest.raises(ConfigError, match=r"wyoming\.peers"):
        peers().check_address("0.0.0.0")
    with pytest.raises(ConfigError, match=r"wyoming\.peers: .*a network is like"):
        peers("home")
