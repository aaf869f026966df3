"""The deepgram provider: streams speech over a WebSocket (https://developers.deepgram.com/reference/streaming)."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

import trio

from sttd.clouds.base import Cloud
from sttd.clouds.base_url import BaseUrl
from sttd.clouds.deepgram_connection import TITLE, Connector
from sttd.clouds.deepgram_stream import DeepgramRecognizer
from sttd.config.credentials import api_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sttd.config.config import Config, SessionOptions
    from sttd.recognizers.base import CloudRecognizer, CloudSupervisor


class Deepgram(Cloud):
    """One account at Deepgram, or at another server at `deepgram.base_url`."""

    name: ClassVar[str] = "deepgram"
    title: ClassVar[str] = TITLE
    library: ClassVar[str] = "trio_websocket"
    finds_endpoints: ClassVar[bool] = True
    takes_phrases: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        base_url = BaseUrl("deepgram.base_url", config.deepgram.base_url)
        key = api_key(self.name, config.deepgram.key_file)
        self.model = config.model or config.deepgram.model
        self.destination = base_url.host
        self._connector = Connector(base_url, key, self.model, config.deepgram)

    @asynccontextmanager
    async def recognizer(self, options: SessionOptions, supervisor: CloudSupervisor) -> AsyncIterator[CloudRecognizer]:
        """See Cloud."""
        async with trio.open_nursery() as nursery:
            recognizer = DeepgramRecognizer(self._connector, options, supervisor)
            nursery.start_soon(recognizer.run)
            yield recognizer
            await recognizer.close()
            nursery.cancel_scope.cancel()
