"""The front door of the ports, in process, against bytes that no client should send."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from sttd.wires.websocket import ReplayStream
from tests.net.inprocess import running
from tests.support import frame

if TYPE_CHECKING:
    from pathlib import Path

KEY = base64.b64encode(bytes(16)).decode()
UPGRADE = (
    f"GET /ws/stt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
).encode()


def with_header(line: bytes) -> bytes:
    return UPGRADE + line + b"\r\n\r\n"


HOSTILE = {
    "non-ascii host": UPGRADE.replace(b"Host: x", b"Host: \xff\xfe\x80") + b"\r\n",
    "bad idna host": UPGRADE.replace(b"Host: x", b"Host: xn--\x7f") + b"\r\n",
    "bad idna label": UPGRADE.replace(b"Host: x", b"Host: xn--a-ecp.ru" * 30) + b"\r\n",
    "non-ascii connection": with_header(b"Connection: \xe9\xe9"),
    "non-ascii subprotocol": with_header(b"Sec-WebSocket-Protocol: \xc3\x28"),
    "non-ascii extension": with_header(b"Sec-WebSocket-Extensions: \xff; \xfe"),
    "quoted extension": with_header(b'Sec-WebSocket-Extensions: permessage-deflate; a="'),
    "empty subprotocol": with_header(b"Sec-WebSocket-Protocol: ,,,"),
    "many subprotocols": with_header(b"Sec-WebSocket-Protocol: " + b"a," * 3000),
    "two keys": with_header(b"Sec-WebSocket-Key: " + KEY.encode()),
    "key of one byte": UPGRADE.replace(KEY.encode(), b"@") + b"\r\n",
    "empty key": UPGRADE.replace(KEY.encode(), b"") + b"\r\n",
    "no key": UPGRADE.replace(b"Sec-WebSocket-Key: " + KEY.encode() + b"\r\n", b"") + b"\r\n",
    "version 8": UPGRADE.replace(b"13", b"8") + b"\r\n",
    "version text": UPGRADE.replace(b"13", b"\xff") + b"\r\n",
    "post upgrade": UPGRADE.replace(b"GET", b"POST") + b"\r\n",
    "strange method": UPGRADE.replace(b"GET", b"G\xffT") + b"\r\n",
    "no connection header": UPGRADE.replace(b"Connection: Upgrade\r\n", b"") + b"\r\n",
    "body length": with_header(b"Content-Length: 5"),
    "negative length": with_header(b"Content-Length: -5"),
    "two lengths": with_header(b"Content-Length: 5\r\nContent-Length: 6"),
    "chunked": with_header(b"Transfer-Encoding: chunked"),
    "length and chunked": with_header(b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
    "no host": UPGRADE.replace(b"Host: x\r\n", b"") + b"\r\n",
    "two hosts": with_header(b"Host: y"),
    "http 1.0": UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n",
    "http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http 9": UPGRADE.replace(b"HTTP/1.1", b"HTTP/9.9") + b"\r\n",
    "no version": b"GET /ws/stt\r\n\r\n",
    "folded header": UPGRADE + b"X: a\r\n b\r\n\r\n",
    "header without colon": UPGRADE + b"nonsense\r\n\r\n",
    "header with nul": UPGRADE + b"X: \x00\r\n\r\n",
    "space before colon": UPGRADE + b"X : a\r\n\r\n",
    "bare newlines": UPGRADE.replace(b"\r\n", b"\n") + b"\n",
    "bare returns": UPGRADE.replace(b"\r\n", b"\r") + b"\r",
    "huge header": UPGRADE + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
    "many headers": UPGRADE + b"X: a\r\n" * 20_000 + b"\r\n",
    "huge target": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "non-ascii target": b"GET /ws/\xff\xfe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "absolute target": UPGRADE.replace(b"/ws/stt", b"http://x/ws/stt") + b"\r\n",
    "star target": UPGRADE.replace(b"/ws/stt", b"*") + b"\r\n",
    "unknown path": UPGRADE.replace(b"/ws/stt", b"/ws/other") + b"\r\n",
    "path with dots": UPGRADE.replace(b"/ws/stt", b"/ws/../ws/stt") + b"\r\n",
    "bad query": UPGRADE.replace(b"/ws/stt", b"/ws/stt?%ff%fe=%00&&&=") + b"\r\n",
    "tls hello": bytes.fromhex("16030100c8010000c40303") + os.urandom(180),
    "socks": b"\x05\x01\x00",
    "smb": b"\x00\x00\x00\x85\xffSMBr\x00",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "zeros": bytes(20_000),
    "only newlines": b"\r\n" * 5000,
    "empty": b"",
    "half a head": UPGRADE,
}


async def test_hostile_heads_are_answered_or_closed_in_time_and_stop_nothing(tmp_path: Path) -> None:
    assert len(HOSTILE) >= 40
    async with running(tmp_path) as server:
        for name, data in HOSTILE.items():
            if b"101 Switching" in (answer := await server.exchange(data + frame(8, b""), limit=4)):
                continue  # harmless after all: it was served, said so, and answered the Close
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), (name, answer)
        await server.settle()
        assert (await server.exchange(UPGRADE + b"\r\n" + frame(8, b""))).startswith(b"HTTP/1.1 101")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /livez", b"200"),
        ("HEAD /livez", b"200"),
        ("GET /readyz", b"503"),
        ("GET /", b"200"),
        ("POST /", b"405"),
        ("GET /anything", b"404"),
        ("GET /api/v1/ws", b"426"),
        ("GET http://sttd.example:8000/livez", b"200"),
        ("GET HTTPS://sttd.example/livez?x=1", b"200"),
        ("GET http://sttd.example", b"200"),
        ("GET http://sttd.example?x", b"200"),
        ("GET http://sttd.example/ws/stt?x=1", b"426"),
        ("POST /anything", b"404"),
        ("DELETE /livez", b"405"),
    ],
)
async def test_plain_requests(tmp_path: Path, request_line: str, status: bytes) -> None:
    async with running(tmp_path) as server:
        answer = await server.exchange(f"{request_line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split()[1] == status
        assert b"Connection: close" in head
        assert bool(body) != request_line.startswith("HEAD")
        await server.settle()


@pytest.mark.parametrize(
    "upgrade",
    [
        b"Upgrade: websocket\r\n",
        b"Upgrade: websocket, h2c\r\n",
        b"Upgrade: h2c,WebSocket\r\n",
        b"Upgrade: websocket\r\nUpgrade: websocket\r\n",
        b"Upgrade: h2c\r\nUpgrade: websocket\r\n",
    ],
)
@pytest.mark.parametrize("target", [b"/ws/stt", b"http://sttd.example:8000/ws/stt"])
async def test_an_upgrade_may_be_one_of_several_and_in_absolute_form(
    tmp_path: Path, upgrade: bytes, target: bytes
) -> None:
    async with running(tmp_path) as server:
        head = UPGRADE.replace(b"Upgrade: websocket\r\n", upgrade).replace(b"/ws/stt", target)
        assert upgrade in head
        assert (await server.exchange(head + b"\r\n" + frame(8, b""))).startswith(b"HTTP/1.1 101")


async def test_a_proxy_that_drops_the_upgrade_is_told_apart(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        answer = await server.exchange(UPGRADE.replace(b"Upgrade: websocket\r\n", b"") + b"\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split()[1] == b"426"
        assert b"\r\nupgrade: websocket" in head.lower()
        assert b"proxy" in body


async def test_answer_and_task_of_a_plain_request_are_quick(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        with trio.fail_after(1):
            for _number in range(20):
                await server.exchange(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            await server.settle()


async def test_refusals_say_what_is_wrong(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        assert b"426" in await server.exchange(HOSTILE["version 8"])
        assert b"Sec-WebSocket-Version: 13" in await server.exchange(HOSTILE["version 8"])
        assert b"431" in await server.exchange(HOSTILE["huge header"])
        assert b"404" in await server.exchange(HOSTILE["unknown path"])
        assert b"16 bytes" in await server.exchange(HOSTILE["key of one byte"])


async def test_a_request_that_never_ends_is_cut_at_the_deadline(tmp_path: Path) -> None:
    async with running(tmp_path) as server, await server.connect() as stream:
        started = trio.current_time()
        with trio.fail_after(3):
            while True:
                try:
                    await stream.send_all(b"X")
                    with trio.move_on_after(0.1):
                        assert await stream.receive_some() == b""
                        break
                except trio.BrokenResourceError:
                    break
        assert 0.7 < trio.current_time() - started < 2
        await server.settle()


async def test_silent_connections_are_cut_while_others_are_served(tmp_path: Path) -> None:
    async with running(tmp_path, connections=200) as server:
        silent = [await server.connect() for _number in range(100)]
        assert (await server.exchange(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).endswith(b"ok\n")
        with trio.fail_after(3):
            for stream in silent:
                assert await stream.receive_some() == b""
                await stream.aclose()
        await server.settle()


async def test_more_connections_than_allowed_are_refused_with_a_hint(tmp_path: Path) -> None:
    async with running(tmp_path, connections=3) as server:
        open_ones = [await server.connect() for _number in range(3)]
        answer = await server.exchange(UPGRADE + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"Retry-After" in answer
        for stream in open_ones:
            await stream.aclose()
        await server.settle()
        assert (await server.exchange(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).endswith(b"ok\n")


async def test_frames_sent_with_the_head_are_not_lost(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        answer = await server.exchange(UPGRADE + b"\r\n" + frame(1, b'{"type":"eof"}') + frame(8, b"\x03\xe8"))
        assert b"No STT model available" in answer
        assert answer.endswith(b"\x88\x02\x03\xe8")


@pytest.mark.parametrize(
    "flood",
    [
        frame(0, b"", fin=False) * 100_000,  # fragments without end
        frame(9, b"") * 100_000,  # pings without end
        frame(3, b"reserved opcode"),
        frame(1, b"\xff\xfe not UTF-8"),
        b"\xff" * 1000,
        b"\x82\xff" + b"\xff" * 12,  # a length of 2^64 - 1
        frame(8, b"\x00"),
        frame(8, b"\x03\xe7no such code"),
        b"\x82\x05hello",  # not masked
        frame(9, b"x" * 126),
    ],
)
async def test_frames_that_no_client_sends_end_their_connection_only(tmp_path: Path, flood: bytes) -> None:
    async with running(tmp_path) as server:
        if flood.startswith(b"\x00"):
            flood = frame(2, b"", fin=False) + flood
        answer = await server.exchange(UPGRADE + b"\r\n" + flood, limit=10)
        # Cutting off a peer that is still sending can take the answer with it.
        assert not answer or answer.startswith(b"HTTP/1.1 101")
        await server.settle()
        assert (await server.exchange(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).endswith(b"ok\n")


async def test_a_message_over_the_limit_is_refused_and_the_socket_closed(tmp_path: Path) -> None:
    async with running(tmp_path, message_bytes=10_000) as server:
        answer = await server.exchange(UPGRADE + b"\r\n" + frame(2, bytes(20_000)))
        assert (1009).to_bytes(2, "big") in answer
        await server.settle()


async def test_a_peer_that_does_not_answer_the_close_is_cut_off(tmp_path: Path) -> None:
    async with running(tmp_path) as server, await server.connect() as stream:
        target = UPGRADE.replace(b"/ws/stt", b"/api/v1/ws")  # closes with 1013: there is no model
        await stream.send_all(target + b"\r\n")
        with trio.fail_after(5):
            while await stream.receive_some():
                pass
        await server.settle()


async def test_replay_stream_is_a_stream() -> None:
    async def pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
        one, other = trio.testing.memory_stream_pair()
        return ReplayStream(b"", one), ReplayStream(b"", other)

    async def clogged() -> tuple[trio.abc.Stream, trio.abc.Stream]:
        one, other = trio.testing.lockstep_stream_pair()
        return ReplayStream(b"", one), ReplayStream(b"", other)

    await trio.testing.check_two_way_stream(pair, clogged)


async def test_replay_stream_gives_the_first_bytes_first() -> None:
    one, other = trio.testing.memory_stream_pair()
    await other.send_all(b"world")
    stream = ReplayStream(b"hello ", one)
    assert await stream.receive_some(3) == b"hel"
    assert await stream.receive_some() == b"lo "
    assert await stream.receive_some() == b"world"
