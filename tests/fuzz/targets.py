"""Each parser of what comes from outside, as a function of bytes that raises where the parser does what it must not."""

from __future__ import annotations

import json
import logging
import socket
import tempfile
from contextlib import ExitStack, suppress
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import trio

from sttd.audio.decode import Unusable, wav_pieces
from sttd.audio.format import converter
from sttd.clouds.deepgram_results import Assembler
from sttd.clouds.groq import transcript_of
from sttd.config.config import AccessConfig, LimitsConfig, SessionOptions, apply_options
from sttd.config.loading import load
from sttd.errors import CloudError, ConfigError, ModelError, OptionError
from sttd.events import Configure, Ending
from sttd.http.access import Access
from sttd.http.admission import Admission
from sttd.http.front_door import FrontDoor, Rules
from sttd.http.messages import Body, Refused, Request, Response
from sttd.http.multipart import read_form
from sttd.http.routes import Route, Routes
from sttd.models.sources import DAMAGED, unpack
from sttd.protocols.registry import PROTOCOLS
from sttd.protocols.wyoming import format_options
from sttd.wires.base import Disconnected
from sttd.wires.frames import Flood, FrameFilter
from sttd.wires.wyoming import EventReader, Malformed, WyomingEvent, audio_format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sttd.wires.websocket import WebSocket

KEPT = tempfile.TemporaryDirectory(prefix="sttd-fuzz-")
FOLDER = Path(KEPT.name)
RATES = (8000, 11025, 16000, 44100, 48000)
ENCODINGS = ("pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_u8", "pcm_mulaw", "pcm_alaw")


def file_of(data: bytes, name: str) -> Path:
    path = FOLDER / name
    path.write_bytes(data)
    return path


def cut(data: bytes) -> Iterator[bytes]:
    """Pieces whose sizes the data says itself."""
    while data:
        size = data[0]
        yield data[1 : 1 + size]
        data = data[1 + size :]


def commands(data: bytes) -> None:
    """Messages of a client, on all protocols, and the options in them."""
    text = data.decode(errors="replace")
    for protocol in (kind() for kind in PROTOCOLS):
        protocol.receive(data)
        command = protocol.receive(text)
        if isinstance(command, Configure):
            with suppress(OptionError):
                apply_options(SessionOptions(), command.options)


def query(data: bytes) -> None:
    """Options in the address."""
    with suppress(OptionError):
        apply_options(SessionOptions(), dict(parse_qsl(data.decode("latin-1"), keep_blank_values=True)))


def settings(data: bytes) -> None:
    """The file of settings."""
    with suppress(ConfigError):
        load({}, {}, file_of(data, "sttd.toml"))


def tokens(data: bytes) -> None:
    """The file of tokens."""
    with suppress(ConfigError):
        Access.read(AccessConfig(tokens_file=str(file_of(data, "tokens.toml"))), {})


def recording(data: bytes) -> None:
    """A WAV file, where no library reads it."""
    with suppress(Unusable):
        for _piece in wav_pieces(BytesIO(data)):
            pass


def archive(data: bytes) -> None:
    """A model's archive."""
    with suppress(ModelError, *DAMAGED):
        unpack(file_of(data, "x.zip"), "*", FOLDER / "unpacked")


def audio(data: bytes) -> None:
    """A client's stream: however it is cut, it gives the same samples."""
    if len(data) < 3:
        return
    form = RATES[data[0] % len(RATES)], ENCODINGS[data[1] % len(ENCODINGS)], 1 + data[2] % 8
    pieces = list(cut(data[3:]))
    one, other = converter(*form), converter(*form)
    assert one.feed(b"".join(pieces)) + one.flush() == b"".join(map(other.feed, pieces)) + other.flush()


def frames(data: bytes) -> None:
    """WebSocket frames."""
    found = FrameFilter(1000, 5000)
    with suppress(Flood):
        for piece in cut(data):
            found.feed(piece, 0.0)


def connection(data: bytes) -> None:
    """All that a peer may send from its first byte on: nothing gets past the front door but an answer or the end."""
    trio.run(_connection, data)


class Faults(logging.Handler):
    """What the front door says of faults in sttd, which end one connection only."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


FAULTS = Faults()
for room in ("http", "wires"):
    logging.getLogger(f"sttd.{room}").addHandler(FAULTS)


async def _connection(data: bytes) -> None:
    FAULTS.records.clear()

    async def echo(request: Request) -> Response:
        return Response(HTTPStatus.OK, await request.body.read())

    async def listen(_query: str, websocket: WebSocket) -> None:
        try:
            while await websocket.receive() is not None:
                pass
            await websocket.close(Ending.DONE)
        except* Disconnected:
            pass

    limits = LimitsConfig(head_s=0.5, close_s=0.5)
    routes = Routes((Route("POST", "/body", echo, max_body=5000, deadline_s=0.5),), ())
    door = FrontDoor(Rules(limits, Access(AccessConfig())), routes, {"/": listen}, Admission(limits))
    theirs, ours = socket.socketpair()
    with theirs:
        # Both ends are in this thread: what does not fit into the socket's buffer would never leave.
        theirs.setblocking(False)
        with suppress(BlockingIOError):
            theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        await door.serve(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
        assert not FAULTS.records, logging.Formatter().format(FAULTS.records[0])
        answer = b""
        with suppress(BlockingIOError, ConnectionError):
            answer = theirs.recv(65536)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 "), answer[:80]


def wyoming(data: bytes) -> None:
    """Wyoming events: however the stream is cut, the same ones."""
    found: list[list[WyomingEvent]] = []
    pieces_of_it = list(cut(data))
    for pieces in (pieces_of_it, [b"".join(pieces_of_it)]):
        reader, events = EventReader(), []
        with suppress(Malformed):
            for piece in pieces:
                reader.feed(piece)
                while (event := reader.next_event()) is not None:
                    events.append(event)
                    format_options(audio_format(event))
        found.append(events)
    assert found[0] == found[1]


def form(data: bytes) -> None:
    """Uploaded forms: however they are cut, the same fields and the same file; the parser may refuse one cut alone."""
    pieces = list(cut(data))
    found, whole = trio.run(_form, pieces), trio.run(_form, [b"".join(pieces)])
    assert found == whole or None in (found, whole)


async def _form(pieces: list[bytes]) -> tuple[dict[str, list[str]], bytes] | None:
    left = [piece for piece in pieces if piece]

    async def receive() -> bytes:
        return left.pop(0) if left else b""

    body = Body(receive, None)
    body.max_bytes = len(b"".join(pieces))
    request = Request("POST", "/", {"content-type": "multipart/form-data; boundary=x"}, body)
    with suppress(Refused), ExitStack() as resources:
        found = await read_form(request, resources)
        return found.fields, found.file.read() if found.file else b""
    return None


def groq(data: bytes) -> None:
    """Answers of Groq."""
    with suppress(CloudError):
        found = transcript_of(data)
        json.dumps(found.text).encode()
        assert all(word.start == word.start for word in found.words), "no NaN"


def deepgram(data: bytes) -> None:
    """Messages of Deepgram, a line each."""
    results = Assembler()
    for line in data.splitlines():
        with suppress(ValueError, TypeError, RecursionError):
            heard = results.receive(dict(json.loads(line)))
            if heard is not None:
                heard.transcript.text.encode()


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        commands,
        query,
        settings,
        tokens,
        recording,
        archive,
        audio,
        frames,
        connection,
        wyoming,
        form,
        groq,
        deepgram,
    )
}
