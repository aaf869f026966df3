"""The front door of Wyoming: who is served, what sttd says of itself, and a session for each utterance."""

from __future__ import annotations

import ipaddress
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import trio

from sttd.errors import ConfigError
from sttd.http.access import ANYBODY, is_loopback
from sttd.http.messages import Refused
from sttd.metrics import LIMITS_HIT, REJECTED
from sttd.protocols.wyoming import Wyoming, format_options
from sttd.wires.base import Disconnected
from sttd.wires.tcp import has_unread, watch_peer
from sttd.wires.wyoming import Malformed, WyomingChannel, WyomingConnection, WyomingEvent, audio_format

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sttd.config.config import Config, LimitsConfig
    from sttd.http.admission import Admission
    from sttd.providers.base import Provider

logger = logging.getLogger(__name__)

ServeUtterance = Callable[[Wyoming, str, WyomingChannel], Awaitable[None]]
"""Called with the options of the session, as in a URL."""


@dataclass(frozen=True)
class Peers:
    """The machines that may connect. Wyoming has no tokens."""

    networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
    everybody: bool

    @classmethod
    def read(cls, config: Config) -> Peers:
        """Return the rules of a configuration. Raises ConfigError if a network is none."""
        try:
            networks = tuple(ipaddress.ip_network(text, strict=False) for text in config.wyoming.peers)
        except ValueError as error:
            raise ConfigError(f"wyoming.peers: {error}; a network is like 192.168.1.0/24 or fd00::/8") from None
        return cls(networks, config.access.allow_unauthenticated and not networks)

    def check_address(self, host: str) -> None:
        """Raise ConfigError if a listener at `host` could be reached by machines about which nothing is said."""
        if not (self.networks or self.everybody or is_loopback(host)):
            raise ConfigError(
                f"wyoming.listen: {host} can be reached from other machines, and Wyoming has no tokens: name those "
                "machines in wyoming.peers, or set access.allow_unauthenticated = true"
            )

    def admit(self, address: str) -> bool:
        """Return whether a machine may connect. This machine always may."""
        if self.everybody or not address or is_loopback(address):
            return True
        try:
            found = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(found, "ipv4_mapped", None) or found
        return any(mapped in network for network in self.networks)


class WyomingDoor:
    """Serves connections."""

    def __init__(
        self, config: Config, provider: Provider, admission: Admission, serve_utterance: ServeUtterance
    ) -> None:
        """Raises ConfigError if `wyoming.peers` cannot be used."""
        self.limits: LimitsConfig = config.limits
        self.peers = Peers.read(config)
        self._early = config.wyoming.early
        self._provider = provider
        self._admission = admission
        self._serve_utterance = serve_utterance
        self._draining = False
        self._waiting: set[trio.CancelScope] = set()  # for the next utterance

    def drain(self) -> None:
        """Answer the utterances that have begun, and take no more."""
        self._draining = True
        for scope in self._waiting:
            scope.cancel()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end. Nothing that goes wrong with it gets past here."""
        await self._admission.guard(stream, partial(self._serve, stream))

    async def _serve(self, stream: trio.SocketStream, peer: str, address: str) -> None:
        watch_peer(stream, self.limits.ping_s)
        connection = WyomingConnection(stream, peer, self.limits)
        if not self.peers.admit(address):
            await self._refuse(connection, "peer", "This machine is not in wyoming.peers.")
        elif limit := self._admission.full(address):
            LIMITS_HIT.labels(limit).inc()
            await self._refuse(connection, limit, "Too many connections; try again.")
        else:
            try:
                await self._serve_events(connection, stream, address)
            except Malformed as error:
                await self._refuse(connection, "event", f"This is not understood as Wyoming: {error}.")

    async def _refuse(self, connection: WyomingConnection, reason: str, message: str) -> None:
        REJECTED.labels(reason).inc()
        logger.info("refused peer=%s reason=%s", connection.peer, reason)
        await connection.send("error", {"text": message, "code": reason})
        await connection.end()

    async def _serve_events(self, connection: WyomingConnection, stream: trio.SocketStream, address: str) -> None:
        event = None
        with self._admission.half_open(address, self.limits.head_s, partial(has_unread, stream)) as scope:
            event = await self._next(connection, math.inf)
        if scope.cancelled_caught:
            LIMITS_HIT.labels("head_s" if trio.current_time() >= scope.deadline else "half_open").inc()
        options: dict[str, object] = {}
        answered = False  # the utterance of which audio still comes
        while event is not None:
            match event.type:
                case "transcribe":
                    language = event.data.get("language")
                    options = {"language": language} if language else {}
                    answered = False
                case "audio-chunk" if answered:
                    pass
                case "audio-stop":
                    if not answered:  # an utterance without audio
                        await connection.send("transcript", {"text": ""})
                    options, answered = {}, False
                case "audio-start" | "audio-chunk":
                    channel = WyomingChannel(connection, event, partial(self._answer, connection))
                    await self._transcribe(channel, options | format_options(audio_format(event)))
                    if channel.malformed is not None:
                        raise channel.malformed
                    if channel.gone:
                        return
                    answered = not channel.stopped_by_client
                    options = {}
                case _:
                    await self._answer(connection, event)
            event = await self._next(connection, self.limits.idle_s or math.inf)
        if self._draining and answered:  # half of what was said was answered
            await self._refuse(connection, "stopping", "sttd is stopping.")

    async def _next(self, connection: WyomingConnection, wait_s: float) -> WyomingEvent | None:
        """Return the next event; None if the peer closes, or waits for too long, or in a drain."""
        with trio.move_on_after(wait_s) as scope:
            if self._draining:
                return None
            self._waiting.add(scope)
            try:
                return await connection.receive()
            finally:
                self._waiting.remove(scope)
        return None

    async def _transcribe(self, channel: WyomingChannel, options: Mapping[str, object]) -> None:
        try:
            with self._admission.session(ANYBODY):
                query = urlencode(options, errors="replace")
                await self._serve_utterance(Wyoming(early=self._early), query, channel)
        except Refused as refused:
            REJECTED.labels(refused.reason).inc()
            with suppress(Disconnected):
                for message in Wyoming.refusal(str(refused), refused.reason):
                    await channel.send(message)

    async def _answer(self, connection: WyomingConnection, event: WyomingEvent) -> None:
        """Answer an event that is not part of an utterance. Unknown ones are passed over."""
        if event.type == "describe":
            await connection.send("info", self._info())
        elif event.type == "ping":
            await connection.send("pong", {"text": event.data.get("text")})

    def _info(self) -> Mapping[str, Any]:
        """Return what clients ask for first. Home Assistant waits for a second, so no model is waited for."""
        provider = self._provider
        about = {"attribution": {"name": "sttd", "url": ""}, "installed": True, "version": version("sttd")}
        model = {
            **about,
            "name": provider.model or provider.config.model or provider.name,
            "description": f"{provider.name} {provider.model}".strip(),
            "languages": list(provider.languages),
            "installed": bool(provider.languages),
        }
        program = {
            **about,
            "name": "sttd",
            "description": "Speech-to-text daemon",
            "models": [model],
            "supports_transcript_streaming": True,
            "requires_external_vad": not self._early,
        }
        others = dict.fromkeys(("tts", "handle", "intent", "wake", "mic", "snd"), ())
        return {"asr": [program], **others}
