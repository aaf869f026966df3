"""Media files through the decoder, which is a process of its own (sttd.audio.decode)."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import IO, TYPE_CHECKING

import trio

from sttd.audio.decode import MISSING, UNUSABLE
from sttd.http.messages import Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PIECE_BYTES = 1 << 16
DECODE = (sys.executable, "-P", "-m", "sttd.audio.decode")
STANDSTILL_S = 60.0
"""Timeout for the next samples; the time in which nobody takes them does not count."""


class Decoder:
    """A running decoder."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._output, self._errors = process.stdout, process.stderr
        self._half = b""

    async def next_piece(self) -> bytes:
        """Return the next samples (PCM, 16-bit, 16 kHz, mono); none at the end.

        Raises Refused if the file cannot be used.
        """
        while data := await self._read():
            data = self._half + data
            whole = len(data) - len(data) % 2
            self._half = bytes(data[whole:])
            if whole:
                return bytes(data[:whole])
        code = await self._process.wait()
        if code == 0:
            return b""
        told = code in (UNUSABLE, MISSING)
        said = bytes(await self._errors.receive_some(1000)).decode(errors="replace") if told else ""
        status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE if code == MISSING else HTTPStatus.BAD_REQUEST
        raise Refused(status, "media", f"{said or 'The file cannot be decoded within the limits of memory and time'}.")

    async def _read(self) -> bytes | bytearray:
        with trio.move_on_after(STANDSTILL_S):
            return await self._output.receive_some(PIECE_BYTES)
        self._process.kill()
        return b""

    async def aclose(self) -> None:
        """End the process."""
        self._process.kill()
        with trio.CancelScope(shield=True):
            await self._process.wait()
        for stream in (self._output, self._errors):
            await trio.aclose_forcefully(stream)


@asynccontextmanager
async def decoded(file: IO[bytes]) -> AsyncIterator[Decoder]:
    """Decode a file while the context lasts, as fast as its pieces are taken."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH") if name in os.environ}
    process = await trio.lowlevel.open_process(
        DECODE, stdin=file.fileno(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=kept
    )
    decoder = Decoder(process)
    try:
        yield decoder
    finally:
        await decoder.aclose()
