"""Providers of "another package", for what real engines cannot be made to do. Found by its dist-info beside it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import trio

from sttd import STTInterface

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Moody(STTInterface):
    """Says how long the audio was; raises at exactly two seconds."""

    def __init__(self) -> None:
        self._open = False

    async def initialize(self, text_handler: Callable[[str], Awaitable[None]] | None = None) -> None:
        self._open = True

    async def transcribe(self, data: bytes | bytearray) -> str:
        assert self._open
        if len(data) == 64000:  # two seconds
            raise RuntimeError("two seconds are too much")
        return f"{len(data) / 32000:.1f} seconds"

    async def close(self) -> None:
        self._open = False

    def is_open(self) -> bool:
        return self._open


class Stuck(Moody):
    """Takes three seconds, whatever it hears."""

    async def transcribe(self, data: bytes | bytearray) -> str:
        await trio.sleep(3)
        return "at last"


class Late(Moody):
    """Has its text for the handler some time after `transcribe` has returned."""

    async def initialize(self, text_handler: Callable[[str], Awaitable[None]] | None = None) -> None:
        self._handler = text_handler

    async def transcribe(self, data: bytes | bytearray) -> str:
        trio.lowlevel.spawn_system_task(self._say)
        return ""

    async def _say(self) -> None:
        await trio.sleep(0.2)
        assert self._handler
        await self._handler("late")


class Chatty(Moody):
    """Answers with a megabyte of text."""

    async def transcribe(self, data: bytes | bytearray) -> str:
        return "word " * 200_000


class Wedged(Moody):
    """Stops the event loop."""

    async def transcribe(self, data: bytes | bytearray) -> str:
        time.sleep(3600)  # noqa: ASYNC251 - that is what is wrong with it
        return ""


class Hungry(Moody):
    """Takes all the memory that there is."""

    async def transcribe(self, data: bytes | bytearray) -> str:
        eaten = []
        while True:
            eaten.append(bytearray(b"x" * (16 << 20)))
            await trio.sleep(0.01)


class Garbled(Moody):
    """Returns what is no text."""

    async def transcribe(self, data: bytes | bytearray) -> str:
        return 5  # type: ignore[return-value]


class Hanging(Moody):
    """Does not come back for long from a call that cannot be interrupted."""

    async def transcribe(self, data: bytes | bytearray) -> str:
        await trio.to_thread.run_sync(time.sleep, float(os.environ.get("STTD_TEST_HANGS_S", "3600")))
        return ""
