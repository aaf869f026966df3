"""What several tests need: recordings, a running daemon, and clients of it."""

from __future__ import annotations

import base64
import csv
import itertools
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import soundfile
from websockets.sync.client import ClientConnection, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache"
SHARED_SPEECH = ROOT.parent / "shared" / "speech"
KEY = "test-key-0123456789abcdef"
"""The API key in all tests, which no daemon may write anywhere."""
NATIVE_CHECK = os.environ.get("STTD_NATIVE_CHECK", "")
"""How the compiled modules were built or are run: `sanitize`, `valgrind`, `cover` (see the Makefile); else empty."""


@dataclass(frozen=True)
class Clip:
    """A recording: s16 samples (frames x channels), its rate, and what is said in it."""

    name: str
    path: Path
    rate: int
    samples: NDArray[np.int16]
    transcript: str

    @property
    def pcm(self) -> bytes:
        """All samples, interleaved."""
        return self.samples.tobytes()


def read_clip(path: Path, transcript: str = "") -> Clip:
    samples, rate = soundfile.read(path, dtype="int16", always_2d=True)
    return Clip(path.stem, path, rate, samples, transcript)


def shared_clips(folder: str) -> list[Clip]:
    """Recordings with exact transcripts below `../shared/speech`; none where that is missing."""
    manifest = SHARED_SPEECH / "manifest.tsv"
    if not manifest.exists():
        return []
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [
        read_clip(SHARED_SPEECH / row["path"], row["transcript"])
        for row in rows
        if row["path"].startswith(folder) and (row["kind"] == "speech" or folder == "noise/")
    ]


def at_16k_mono(clip: Clip) -> bytes:
    """The clip as a client of the documented protocols has to send it."""
    from sttd.audio.format import converter

    if clip.path not in _converted:
        stream = converter(clip.rate, "pcm_s16le", clip.samples.shape[1])
        _converted[clip.path] = stream.feed(clip.pcm) + stream.flush()
    return _converted[clip.path]


_converted: dict[Path, bytes] = {}


def normalized(text: str) -> str:
    """Lower case without punctuation, for comparing transcripts."""
    return " ".join(re.sub(r"[^\w' ]", "", text.lower().replace("-", " ")).split())


def link_or_copy(source: str, target: str) -> None:
    """For shutil.copytree: two folders may lie on two file systems."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@dataclass
class Daemon:
    """A running sttd process."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    address: str = ""

    def url(self, path: str, **query: object) -> str:
        text = "&".join(f"{key}={value}" for key, value in query.items())
        return f"ws://{self.address}{path}" + (f"?{text}" if text else "")

    def json(self, **query: object) -> ClientConnection:
        return connect(self.url("/ws/stt", **query), max_size=None, compression=None)

    def client(self, path: str, subprotocols: list[Any] | None = None, **query: object) -> ClientConnection:
        return connect(self.url(path, **query), max_size=None, compression=None, subprotocols=subprotocols)

    def plain(self, **query: object) -> ClientConnection:
        return connect(self.url("/api/v1/ws", **query), max_size=None, compression=None)

    @property
    def host_port(self) -> tuple[str, int]:
        host, _, port = self.address.rpartition(":")
        return host, int(port)

    def get(self, path: str, host: str = "x") -> tuple[int, str]:
        with socket.create_connection(self.host_port, timeout=10) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: client.recv(65536), b"")).decode()
        head, _, body = answer.partition("\r\n\r\n")
        return int(head.split()[1]), body

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.get("/readyz")[1]))

    def wait_ready(self, seconds: float = 60) -> None:
        wait_until(lambda: self.get("/readyz")[0] == 200, seconds, "the daemon to be ready")

    def tasks(self) -> int:
        """Of its event loop, as it was half a second ago."""
        found = re.search(r"^sttd_event_loop_tasks (\S+)$", self.get("/metrics", "localhost")[1], re.MULTILINE)
        assert found
        return int(float(found[1]))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def log(self) -> str:
        return "\n".join(self.errors)


def wait_until(condition: Any, seconds: float, what: str) -> None:
    """Poll: for things that another process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.05)


def environment(models: Path | str, **extra: str) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("STT_", "STTD_"))}
    state = {"XDG_STATE_HOME": str(CACHE / "state")}
    return {**clean, **state, "STTD_MODELS__DIR": str(models), "PYTHONUNBUFFERED": "1", **extra}


@contextmanager
def running_daemon(
    models: Path | str, *arguments: str, ready: bool = True, program: str = "sttd", **extra: str
) -> Iterator[Daemon]:
    """An sttd process on a free port of the loopback interface; stopped, and its log printed, at the end."""
    command = [sys.executable, "-m", program, "--listen", "127.0.0.1:0", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(models, **extra)
    )
    daemon = Daemon(process)
    assert process.stdout is not None
    assert process.stderr is not None
    readers = [
        threading.Thread(target=lambda: daemon.lines.extend(process.stdout or ())),
        threading.Thread(target=lambda: daemon.errors.extend(line.rstrip() for line in process.stderr or ())),
    ]
    for reader in readers:
        reader.start()
    try:
        wait_until(lambda: process.poll() is not None or any("Try it" in line for line in daemon.lines), 30, "sttd")
        found = re.search(r"ws://([\d.]+:\d+)/ws/stt", "".join(daemon.lines))
        assert found, daemon.log()
        daemon.address = found[1]
        if ready:
            daemon.wait_ready()
        yield daemon
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for reader in readers:
            reader.join()
        process.stdout.close()
        process.stderr.close()
        print(f"--- log of sttd {' '.join(arguments)}\n{daemon.log()}")
        assert KEY not in daemon.log() + "".join(daemon.lines), "an API key was written"


def pieces(pcm: bytes, milliseconds: float = 100) -> list[bytes]:
    """16 kHz mono s16 audio in pieces of a length."""
    size = int(32 * milliseconds)
    return [pcm[start : start + size] for start in range(0, len(pcm), size)]


def trimmed(pcm: bytes) -> bytes:
    """From 0.2 s before what is loud to 50 ms after it."""
    import numpy as np

    samples = np.frombuffer(pcm, np.int16).astype(int)
    loud = np.flatnonzero(np.abs(samples) > 500)
    return pcm[2 * max(0, int(loud[0]) - 3200) : 2 * int(loud[-1] + 800)]


def json_events(client: ClientConnection, pcm: bytes, milliseconds: float = 100) -> list[dict[str, Any]]:
    """Stream a recording as fast as possible, end the stream, and collect every event until the Close."""
    events: list[dict[str, Any]] = []
    receiver = threading.Thread(target=lambda: events.extend(json.loads(message) for message in client))
    receiver.start()
    for piece in pieces(pcm, milliseconds):
        client.send(piece)
    client.send('{"type": "eof"}')
    receiver.join()
    return events


def finals(events: list[dict[str, Any]]) -> list[str]:
    return [event["text"] for event in events if event["type"] == "final"]


class RawClient:
    """A WebSocket client made of bytes: it can do what libraries will not."""

    opened: ClassVar[list[socket.socket]] = []

    def __init__(self, daemon: Daemon, target: str) -> None:
        self.socket = socket.create_connection(daemon.host_port, timeout=60)
        self.opened.append(self.socket)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self.buffer += self.socket.recv(4096)
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head

    def send(self, opcode: int, payload: bytes, *, fin: bool = True) -> None:
        self.socket.sendall(frame(opcode, payload, fin=fin))

    def receive(self) -> tuple[int, bytes] | None:
        """The next frame's opcode and payload; None when the peer has closed the connection."""
        while True:
            if len(self.buffer) >= 2:
                length, start = self.buffer[1], 2
                if length == 126:
                    start = 4
                    length = struct.unpack("!H", self.buffer[2:4])[0] if len(self.buffer) >= 4 else 1 << 40
                if len(self.buffer) >= start + length:
                    opcode, payload = self.buffer[0] & 15, self.buffer[start : start + length]
                    self.buffer = self.buffer[start + length :]
                    return opcode, payload
            data = self.socket.recv(65536)
            if not data:
                return None
            self.buffer += data

    def receive_text(self) -> dict[str, Any]:
        received = self.receive()
        assert received is not None
        assert received[0] == 1, received
        return dict(json.loads(received[1]))


def frame(opcode: int, payload: bytes, *, fin: bool = True, mask: bytes = bytes(4)) -> bytes:
    """A client's frame."""
    first = bytes([(0x80 if fin else 0) | opcode])
    if len(payload) < 126:
        head = bytes([0x80 | len(payload)])
    elif len(payload) < 1 << 16:
        head = bytes([0x80 | 126]) + struct.pack("!H", len(payload))
    else:
        head = bytes([0x80 | 127]) + struct.pack("!Q", len(payload))
    if any(mask):
        payload = bytes(byte ^ key for byte, key in zip(payload, itertools.cycle(mask), strict=False))
    return first + head + mask + payload
