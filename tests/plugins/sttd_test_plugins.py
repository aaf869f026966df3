"""Providers of "another package", for what real engines cannot be made to do. Found by its dist-info beside it."""

from __future__ import annotations

from sttd import STTInterface


class Moody(STTInterface):
    """Says how long the audio was; raises at exactly two seconds."""

    def __init__(self) -> None:
        self._open = False

    async def initialize(self, text_handler: object = None) -> None:
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


class Chatty(Moody):
    """Answers with a megabyte of text."""

    async def transcribe(self, data: bytes | bytearray) -> str:
        return "word " * 200_000
