"""Read an uploaded form (RFC 7578) as it comes: fields in memory, the file on disk. python-multipart parses it."""

from __future__ import annotations

import logging
import os
import tempfile
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import IO, TYPE_CHECKING, Any

import trio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from sttd.http.messages import Refused

if TYPE_CHECKING:
    from contextlib import ExitStack

    from sttd.http.messages import Request

logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # what peers send is not for the log
MAX_PARTS, MAX_FIELDS_BYTES = 64, 256 << 10
SPOOL_BYTES = 256 << 10
"""What is gathered for one write to the disk."""
PIECE_S, MIN_BYTES_PER_S = 30.0, 8192
"""An upload has so many seconds, and one more for each so many bytes."""


@dataclass
class Form:
    """An uploaded form."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    file: IO[bytes] | None = None
    """The file that was uploaded as `file`, from its begin."""

    def first(self, name: str) -> str:
        """Return the first value of a field; empty if it is missing."""
        return self.fields.get(name, [""])[0].strip()


class Spool:
    """A file without a name for an upload. Writes are gathered, and made in a thread."""

    def __init__(self, resources: ExitStack) -> None:
        """`resources` closes the file. Raises Refused if there is no place for it."""
        folder = os.environ.get("CACHE_DIRECTORY", "").split(":")[0] or None  # set by systemd from CacheDirectory=
        try:
            self.file: IO[bytes] = resources.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
        except OSError as error:
            raise _not_stored(error) from None
        self._waiting = bytearray()

    def add(self, data: bytes) -> None:
        """Take data, for the next `write`."""
        self._waiting += data

    async def write(self, *, last: bool = False) -> None:
        """Write what is waiting, if that is much or the last. Raises Refused if the disk is full."""
        if not last and len(self._waiting) < SPOOL_BYTES:
            return
        data, self._waiting = bytes(self._waiting), bytearray()
        try:
            await trio.to_thread.run_sync(self.file.write, data)
            if last:
                self.file.flush()
                self.file.seek(0)
        except OSError as error:
            raise _not_stored(error) from None


class _Parts:
    """Gathers the parts of a form from the parser's callbacks."""

    def __init__(self, resources: ExitStack) -> None:
        self.form = Form()
        self.spool: Spool | None = None
        self.ended = False
        self._resources = resources
        self._left = MAX_FIELDS_BYTES
        self._parts = 0
        self._name = self._value = bytearray()
        self._header = ""
        self._disposition = b""
        self._is_file = False

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise _bad(f"The form has more than {MAX_PARTS} parts.")
        self._disposition = b""

    def on_header_begin(self) -> None:
        self._name = bytearray()
        self._value = bytearray()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if bytes(self._name).lower() == b"content-disposition":
            self._disposition = bytes(self._value)

    def on_headers_finished(self) -> None:
        _kind, options = parse_options_header(self._disposition)
        self._header = options.get(b"name", b"").decode(errors="replace")
        self._is_file = self._header == "file"
        self._value = bytearray()
        if self._is_file:
            if self.spool is not None:
                raise _bad("The form has more than one file.")
            self.spool = Spool(self._resources)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            assert self.spool is not None
            self.spool.add(data[start:end])
            return
        self._left -= end - start
        if self._left < 0:
            raise _bad(f"The fields of the form have more than {MAX_FIELDS_BYTES} bytes.")
        self._value += data[start:end]

    def on_part_end(self) -> None:
        if not self._is_file:
            self.form.fields.setdefault(self._header, []).append(self._value.decode(errors="replace"))

    def on_end(self) -> None:
        self.ended = True


async def read_form(request: Request, resources: ExitStack) -> Form:
    """Read the body of a request as a form; `resources` closes its file. Raises Refused if it is none."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "form", "This needs a form: multipart/form-data with a file.")
    parts = _Parts(resources)
    names = [name for name in vars(_Parts) if name.startswith("on_")]
    try:
        callbacks: Any = {name: getattr(parts, name) for name in names}
        parser = MultipartParser(options[b"boundary"], callbacks)
        pace = _Pace(request)
        while data := await pace.next_piece():
            parser.write(data)
            if parts.spool is not None:
                await parts.spool.write()
        parser.finalize()
    except FormParserError:
        raise _bad("The form is malformed.") from None
    if not parts.ended:
        raise _bad("The form is cut off.")
    if parts.spool is not None:
        await parts.spool.write(last=True)
        parts.form.file = parts.spool.file
    return parts.form


async def read_file(request: Request, resources: ExitStack) -> IO[bytes]:
    """Read the body of a request as a file, which `resources` closes. Raises Refused if that fails."""
    spool = Spool(resources)
    pace = _Pace(request)
    while data := await pace.next_piece():
        spool.add(data)
        await spool.write()
    await spool.write(last=True)
    return spool.file


class _Pace:
    """Reads a body that has to come at a minimum rate, so that nobody holds a place by sending hardly anything."""

    def __init__(self, request: Request) -> None:
        self._body = request.body
        self._deadline = trio.current_time() + PIECE_S

    async def next_piece(self) -> bytes:
        """Return the next bytes; none at the end. Raises Refused if they do not come in time."""
        with trio.move_on_at(self._deadline):
            data = await self._body.next_piece()
            self._deadline += len(data) / MIN_BYTES_PER_S
            return data
        message = f"The upload is too slow: less than {MIN_BYTES_PER_S} bytes a second after {PIECE_S:g} s."
        raise Refused(HTTPStatus.REQUEST_TIMEOUT, "deadline", message)


def _not_stored(error: OSError) -> Refused:
    return Refused.busy("spool", f"The upload cannot be stored: {error.strerror}.")


def _bad(message: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, "form", message)
