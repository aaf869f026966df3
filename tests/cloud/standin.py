"""What the stand-ins for both clouds share: a TLS server in a thread of the test's process, and what to do wrong."""

from __future__ import annotations

import ssl
import threading
import traceback
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import trio
import trustme
from trio_websocket import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Certificates:
    """A certificate authority of our own, whose file clients are told to trust."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.file = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.file))
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(self.server)


class Standin:
    """A server on the loopback interface. `faults` are taken one a request or connection; then all is well."""

    def __init__(self, certificates: Certificates) -> None:
        self.certificates = certificates
        self.port = 0
        self.faults: deque[Any] = deque()
        self.faults_in: dict[str, deque[Any]] = {}
        """The faults for who names a language."""
        self.complaints: list[str] = []
        """What a client did that the documentation does not allow."""

    def expect(self, condition: object, what: str) -> None:
        if not condition:
            self.complaints.append(what)

    def settle(self) -> None:
        """After each test."""
        complaints = self.complaints.copy()
        self.complaints.clear()
        self.faults.clear()
        self.faults_in.clear()
        assert not complaints

    def next_fault(self, language: str = "") -> Any:
        faults = self.faults_in.get(language) if language else self.faults
        return faults.popleft() if faults else None

    async def serve(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        raise NotImplementedError

    async def _guarded(self, stream: trio.SocketStream) -> None:
        try:
            secure = trio.SSLStream(stream, self.certificates.server, server_side=True, https_compatible=True)
            await self.serve(secure)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionClosed):
            pass  # the client may leave at any time, during the handshake too
        except* Exception as group:
            self.complaints.append("the stand-in failed: " + "".join(traceback.format_exception(group)))

    async def _run(self, started: threading.Event, stop: trio.Event) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._guarded, listeners)
            started.set()
            await stop.wait()
            nursery.cancel_scope.cancel()

    @contextmanager
    def running(self) -> Iterator[None]:
        started, stop = threading.Event(), trio.Event()
        token: list[trio.lowlevel.TrioToken] = []

        async def main() -> None:
            token.append(trio.lowlevel.current_trio_token())
            await self._run(started, stop)

        thread = threading.Thread(target=lambda: trio.run(main))
        thread.start()
        assert started.wait(10)
        try:
            yield
        finally:
            token[0].run_sync_soon(stop.set)
            thread.join(10)
