"""Connections to Deepgram's streaming API (https://developers.deepgram.com/reference/streaming)."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import trio
from trio_websocket import (
    ConnectionRejected,
    WebSocketConnection,
    wrap_client_stream,
)

from sttd.audio.format import RATE
from sttd.errors import CloudError, first

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sttd.clouds.base_url import BaseUrl
    from sttd.config.config import DeepgramConfig, SessionOptions

logger = logging.getLogger(__name__)

TITLE = "Deepgram"
CONNECT_S = 5.0
MAX_MESSAGE_BYTES = 1 << 20
_REASONS = {
    400: "rejected the request",
    401: "rejected the API key",
    402: "says that the account has no credit",
    403: "does not allow this account to use the model",
    429: "allows no further stream for this account",
}
_PERMANENT = {400, 401, 402, 403}


class Lost(Exception):
    """The connection failed or was lost. Another attempt may succeed."""


class Connector:
    """Opens connections for one account."""

    def __init__(self, base_url: BaseUrl, key: str, model: str, settings: DeepgramConfig) -> None:
        self.settings = settings
        self._base_url = base_url
        self._key = key
        self._model = model

    @asynccontextmanager
    async def connect(self, options: SessionOptions) -> AsyncIterator[WebSocketConnection]:
        """Open a connection. Raises CloudError if another attempt would fail too, Lost if Deepgram refuses for now."""
        try:
            async with trio.open_nursery() as nursery, self._stream() as stream:
                with trio.fail_after(CONNECT_S):
                    connection = await wrap_client_stream(
                        nursery,
                        stream,
                        self._base_url.netloc,
                        f"{self._base_url.path}/v1/listen?{urlencode(self._query(options), doseq=True)}",
                        extra_headers=[(b"Authorization", f"Token {self._key}".encode())],
                        max_message_size=MAX_MESSAGE_BYTES,
                    )
                yield connection
                nursery.cancel_scope.cancel()
        except* ConnectionRejected as group:
            rejected = first(group)
            assert isinstance(rejected, ConnectionRejected)
            raise self._rejection(rejected) from None

    @asynccontextmanager
    async def _stream(self) -> AsyncIterator[trio.SocketStream | trio.SSLStream[trio.SocketStream]]:
        """Open a TCP or TLS stream and close it at the end: trio-websocket does not close one that the peer has cut."""
        host, port, context = self._base_url.host, self._base_url.port, self._base_url.tls
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
        with trio.fail_after(CONNECT_S):
            if context is None:
                stream = await trio.open_tcp_stream(host, port)
            else:
                stream = await trio.open_ssl_over_tcp_stream(host, port, https_compatible=True, ssl_context=context)
        try:
            yield stream
        finally:
            await trio.aclose_forcefully(stream)

    def _query(self, options: SessionOptions) -> dict[str, object]:
        query: dict[str, object] = {
            "model": self._model,
            "encoding": "linear16",
            "sample_rate": RATE,
            "channels": 1,
            "interim_results": "true",
            "endpointing": self.settings.endpointing_ms,
            "utterance_end_ms": 1000,
            "vad_events": "true",
            "smart_format": "true",
            "punctuate": "true",
        }
        if options.language:
            query["language"] = options.language
        if options.phrases:
            query["keyterm"] = list(options.phrases)
        return query

    def _rejection(self, rejected: ConnectionRejected) -> Exception:
        status = rejected.status_code
        headers = {name.lower(): value.decode(errors="replace") for name, value in rejected.headers or ()}
        logger.warning(
            "deepgram: status=%d request=%s error=%s body=%r",
            status,
            headers.get(b"dg-request-id", ""),
            self.without_key(headers.get(b"dg-error", "")),
            self.without_key((rejected.body or b"").decode(errors="replace"))[:500],
        )
        message = f"{TITLE} {_REASONS.get(status, 'reported an error')} ({status})"
        return CloudError(message, permanent=True) if status in _PERMANENT else Lost(message)

    def without_key(self, text: str) -> str:
        """Return a text for the log, with the API key removed."""
        return text.replace(self._key, "[key]")
