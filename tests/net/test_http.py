"""Plain HTTP over real sockets: bodies, keep-alive, and bodies that no client should send."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

import httpx2
import pytest
import trio
import trio.testing

from sttd.config.config import AccessConfig, LimitsConfig
from sttd.errors import CloudError
from sttd.http.access import Access
from sttd.http.admission import Admission
from sttd.http.front_door import KEEP_ALIVE_S, FrontDoor, Rules
from sttd.http.messages import Request, Response, Send
from sttd.http.routes import Need, Route, Routes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

MAX_BODY = 100_000


async def digest(request: Request) -> Response:
    """Takes the body as a stream, and says what it was."""
    found, size = hashlib.sha256(), 0
    while data := await request.body.next_piece():
        found.update(data)
        size += len(data)
    return Response.json(HTTPStatus.OK, {"size": size, "sha256": found.hexdigest()})


async def whole(request: Request) -> Response:
    return Response(HTTPStatus.OK, await request.body.read(), content_type="application/octet-stream")


async def stream(request: Request) -> Response:
    async def pieces(send: Send) -> None:
        for number in range(3):
            await trio.sleep(0.01)
            await send(f"piece {number}\n".encode())

    return Response(HTTPStatus.OK, pieces)


async def ignore(request: Request) -> Response:
    return Response(HTTPStatus.OK, "not read\n")


async def fail(request: Request) -> Response:
    raise ZeroDivisionError


async def cloud(request: Request) -> Response:
    raise CloudError("Groq cannot be reached")


async def hang(request: Request) -> Response:
    await trio.sleep_forever()


ROUTES = (
    Route("POST", "/digest", digest, max_body=MAX_BODY, deadline_s=0.5),
    Route("PUT", "/digest", digest, max_body=MAX_BODY, deadline_s=0.5),
    Route("POST", "/whole", whole, max_body=MAX_BODY),
    Route("GET", "/stream", stream),
    Route("POST", "/ignore", ignore),
    Route("GET", "/fail", fail),
    Route("GET", "/cloud", cloud),
    Route("GET", "/hang", hang, deadline_s=0.2),
    Route("POST", "/session", whole, Need.SESSION, max_body=MAX_BODY),
    Route("GET", "/token", ignore, Need.TOKEN),
)


class Server:
    def __init__(self, admission: Admission, port: int) -> None:
        self.admission = admission
        self.port = port

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    def client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", trust_env=False)

    async def exchange(self, *data: bytes, close: bool = False) -> bytes:
        """Everything that the server sends until it closes."""
        answer = bytearray()
        async with await self.connect() as client:
            with trio.fail_after(8):
                try:
                    for piece in data:
                        await client.send_all(piece)
                    if close:
                        await client.send_eof()
                    while chunk := await client.receive_some():
                        answer += chunk
                except trio.BrokenResourceError:
                    pass
        return bytes(answer)


@asynccontextmanager
async def serving(access: AccessConfig | None = None, **limits: float) -> AsyncIterator[Server]:
    given = LimitsConfig(**{"head_s": 0.5, "send_s": 2.0, **limits})  # type: ignore[arg-type]
    admission = Admission(given)
    rules = Rules(given, Access.read(access or AccessConfig(), {}))
    door = FrontDoor(rules, Routes(ROUTES, ()), {}, admission)
    async with trio.open_nursery() as nursery:
        listen = partial(trio.serve_tcp, door.serve, 0, host="127.0.0.1")
        listeners = await nursery.start(listen)
        yield Server(admission, listeners[0].socket.getsockname()[1])
        with trio.fail_after(3):
            await admission.none_left()
        nursery.cancel_scope.cancel()


def post(path: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode() + body


CLOSE = "Connection: close"
CHUNKED = "Transfer-Encoding: chunked"


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return f"{len(data):x}".encode() + extension + b"\r\n" + data + b"\r\n"


async def test_a_client_uploads_on_one_connection_in_both_ways() -> None:
    data = bytes(range(256)) * 300

    async def pieces() -> AsyncGenerator[bytes]:
        for start in range(0, len(data), 7000):
            yield data[start : start + 7000]

    expected = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    async with serving() as server, server.client() as client:
        for _round in range(3):
            assert (await client.post("/digest", content=data)).json() == expected
            assert (await client.post("/digest", content=pieces())).json() == expected
            assert (await client.put("/digest", content=data)).json() == expected
            assert (await client.post("/whole", content=pieces())).content == data
            assert (await client.get("/stream")).text == "piece 0\npiece 1\npiece 2\n"
            assert (await client.head("/stream")).text == ""
        assert server.admission.open == 1, "all on one connection"


async def test_a_body_in_chunks_of_a_byte_leaves_others_their_turns() -> None:
    async with serving(head_s=10.0) as server:  # half a second is too short for it on a busy machine
        body = chunk(b"x") * 8000 + chunk(b"")
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            head = b"POST /digest HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            answer = await server.exchange(head + body)
            nursery.cancel_scope.cancel()
    assert b'"size": 8000' in answer
    assert turns > 4000


async def test_a_bad_head_after_a_head_request_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server:
        answer = await server.exchange(b"HEAD /stream HTTP/1.1\r\nHost: x\r\n\r\n" + b"nonsense\r\n\r\n")
    assert answer.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 400" in answer
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_requests_may_follow_each_other_without_waiting() -> None:
    async with serving() as server:
        answer = await server.exchange(
            post("/whole", "Content-Length: 3", body=b"one")
            + post("/whole", CHUNKED, body=chunk(b"two", b";name=value") + b"0\r\nTrailer: x\r\n\r\n")
            + post("/whole", "Content-Length: 5", CLOSE, body=b"three")
        )
    assert answer.count(b"HTTP/1.1 200") == 3
    assert 0 < answer.find(b"one") < answer.find(b"two") < answer.find(b"three")


async def test_expect_100_continue() -> None:
    head = post("/whole", "Content-Length: 4", "Expect: 100-continue", CLOSE)
    async with serving() as server:
        async with await server.connect() as client:
            await client.send_all(head)
            assert await client.receive_some() == b"HTTP/1.1 100 \r\n\r\n"
            await client.send_all(b"data")
            answer = b"".join([data async for data in client])
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(b"data")
        refused = await server.exchange(post("/whole", f"Content-Length: {MAX_BODY + 1}", "Expect: 100-continue"))
        assert refused.startswith(b"HTTP/1.1 413"), "before anything is sent for nothing"


async def test_a_connection_that_says_nothing_more_is_closed_and_is_no_fault() -> None:
    async with serving(head_s=KEEP_ALIVE_S) as server, await server.connect() as client:
        await client.send_all(post("/ignore", "Content-Length: 0"))
        assert b"not read" in await client.receive_some()
        started = trio.current_time()
        assert await client.receive_some() == b""
        assert KEEP_ALIVE_S - 0.5 < trio.current_time() - started < KEEP_ALIVE_S + 2


async def test_a_drain_ends_connections_that_are_kept_and_those_alone() -> None:
    given = LimitsConfig()
    admission = Admission(given)
    door = FrontDoor(Rules(given, Access(AccessConfig())), Routes(ROUTES, ()), {}, admission)
    async with trio.open_nursery() as nursery:
        listen = partial(trio.serve_tcp, door.serve, 0, host="127.0.0.1")
        listeners = await nursery.start(listen)
        server = Server(admission, listeners[0].socket.getsockname()[1])
        async with await server.connect() as idle, await server.connect() as busy:
            for client in (idle, busy):
                await client.send_all(post("/whole", "Content-Length: 2", body=b"ok"))
                assert (await client.receive_some()).endswith(b"ok")
            await busy.send_all(post("/whole", "Content-Length: 4", body=b"ha"))
            await trio.sleep(0.1)
            door.drain()
            assert await idle.receive_some() == b""
            await busy.send_all(b"lf")
            answer = b"".join([data async for data in busy])
        assert answer.endswith(b"half")
        assert b"connection: close" in answer.lower()
        nursery.cancel_scope.cancel()


HOSTILE = {
    "too long": (post("/whole", f"Content-Length: {MAX_BODY + 1}", body=bytes(MAX_BODY + 1)), b"413"),
    "chunks without end": (post("/whole", CHUNKED, body=chunk(bytes(5000)) * 30), b"413"),
    "both lengths": (post("/whole", "Content-Length: 3", CHUNKED, body=chunk(b"abc") + b"0\r\n\r\n"), b"400"),
    "two lengths": (post("/whole", "Content-Length: 3", "Content-Length: 4", body=b"abcd"), b"400"),
    "negative length": (post("/whole", "Content-Length: -3", body=b"abc"), b"400"),
    "length that is no number": (post("/whole", "Content-Length: three", body=b"abc"), b"400"),
    "huge length": (post("/whole", f"Content-Length: {10**30}", body=b"abc"), b"400 or 413"),
    "unknown encoding": (post("/whole", "Transfer-Encoding: gzip, chunked", body=b"abc"), b"501"),
    "a chunk that is none": (post("/whole", CHUNKED, body=b"xyz\r\nabc\r\n"), b"400"),
    "a chunk longer than it says": (post("/whole", CHUNKED, body=b"2\r\nabc\r\n0\r\n\r\n"), b"400"),
    "a huge chunk": (post("/whole", CHUNKED, body=b"f" * 40 + b"\r\nabc"), b"400 or 413"),
    "an extension without end": (post("/whole", CHUNKED, body=b"1;" + b"x" * 200_000), b"400 or 431"),
    "trailers without end": (post("/whole", CHUNKED, body=chunk(b"a") + b"0\r\n" + b"X: y\r\n" * 20_000), b"431"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_bodies_are_refused(name: str) -> None:
    data, status = HOSTILE[name]
    async with serving() as server:
        answer = await server.exchange(data)
        assert answer.startswith(b"HTTP/1.1 "), answer
        assert answer.split()[1] in status.split(), answer
        assert (await server.exchange(post("/whole", "Content-Length: 2", CLOSE, body=b"ok"))).endswith(b"ok")


@pytest.mark.parametrize(
    "body",
    [
        [post("/digest", "Content-Length: 50", body=b"too little")],
        [post("/digest", CHUNKED, body=chunk(b"a") * 3)],
        [post("/digest", CHUNKED, body=chunk(b"a", b";" + b"x" * 1000))],
    ],
)
async def test_a_body_that_does_not_come_is_waited_for_no_longer_than_the_route_says(body: list[bytes]) -> None:
    async with serving() as server:
        started = trio.current_time()
        assert (await server.exchange(*body)).startswith(b"HTTP/1.1 408")
        assert trio.current_time() - started < 3


async def test_a_body_that_drips(autojump_clock: trio.testing.MockClock) -> None:
    """A byte now and then keeps nothing open."""
    given = LimitsConfig()
    door = FrontDoor(Rules(given, Access(AccessConfig())), Routes(ROUTES, ()), {}, Admission(given))
    ours, theirs = trio.socket.socketpair()
    async with trio.open_nursery() as nursery, trio.SocketStream(theirs) as client:
        nursery.start_soon(door.serve, trio.SocketStream(ours))
        await client.send_all(post("/digest", "Content-Length: 5000"))
        answer = b""
        while not answer:
            with trio.move_on_after(0.05):
                answer = await client.receive_some()
            await client.send_all(b"x")
        assert answer.startswith(b"HTTP/1.1 408")
        nursery.cancel_scope.cancel()


async def test_a_client_that_leaves_in_the_middle_of_a_body_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server:
        answer = await server.exchange(post("/whole", "Content-Length: 50", body=b"half"), close=True)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
        client = await server.connect()
        await client.send_all(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.aclose_forcefully(client)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_body_that_nobody_reads_ends_the_connection_after_the_answer() -> None:
    async with serving() as server:
        answer = await server.exchange(post("/ignore", "Content-Length: 60000", body=bytes(60_000)))
        assert answer.endswith(b"not read\n")
        assert b"connection: close" in answer.lower()


async def test_faults_have_the_status_that_belongs_to_them(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server, server.client() as client:
        assert (await client.get("/fail")).status_code == 500
        assert "ZeroDivisionError" in caplog.text
        cloud = await client.get("/cloud")
        assert (cloud.status_code, cloud.text) == (502, "Groq cannot be reached\n")
        assert (await client.get("/hang")).status_code == 503
        assert (await client.get("/elsewhere")).status_code == 404
        wrong = await client.delete("/stream")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD")
        assert (await client.get("/digest")).headers["allow"] == "POST, PUT"


async def test_routes_say_who_may_ask(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text('kitchen = { token = "correct horse battery staple", sessions = 1 }\n')
    async with serving(AccessConfig(tokens_file=str(tokens))) as server, server.client() as client:
        assert (await client.post("/session", content=b"x")).status_code == 401
        headers = {"Authorization": "Bearer correct horse battery staple"}
        assert (await client.post("/session", content=b"x", headers=headers)).status_code == 200
        assert (await client.get("/token")).status_code == 200, "on this machine"
        async with await server.connect() as other:
            await other.send_all(post("/session", "Authorization: Bearer correct horse battery staple", CHUNKED))
            await trio.sleep(0.1)
            busy = await client.post("/session", content=b"x", headers=headers)
            assert (busy.status_code, busy.headers["retry-after"]) == (503, "5")
        await trio.sleep(0.1)
        assert (await client.post("/session", content=b"x", headers=headers)).status_code == 200


async def test_a_peer_that_reads_slowly_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    async def much(request: Request) -> Response:
        return Response(HTTPStatus.OK, bytes(50_000_000))

    given = LimitsConfig(send_s=0.3)
    door = FrontDoor(Rules(given, Access(AccessConfig())), Routes((Route("GET", "/", much),), ()), {}, Admission(given))
    ours, theirs = trio.socket.socketpair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.serve, trio.SocketStream(ours))
        await trio.SocketStream(theirs).send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with trio.fail_after(5):
            while nursery.child_tasks:  # noqa: ASYNC110 - a set has no event
                await trio.sleep(0.05)
    theirs.close()
