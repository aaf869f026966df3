"""`sttd serve`: run the daemon."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sttd import __version__
from sttd.cli.options import add_settings, load_settings
from sttd.errors import ModelError, ModelMissing
from sttd.providers.registry import local_config

if TYPE_CHECKING:
    import argparse

    from sttd.cli.options import Parser
    from sttd.config.config import Config
    from sttd.models.catalog import Entry
    from sttd.ops.sockets import Listener
    from sttd.server import Daemon

NAME, HELP = "serve", "run the daemon (what plain `sttd` does)"
logger = logging.getLogger(__name__)
LEAVE_S = 2.0
"""After all is said, for tasks to end."""


def add_options(parser: Parser) -> None:
    """Say what the command takes."""
    add_settings(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    loaded = load_settings(arguments)
    config = loaded.config
    from sttd.models.store import wanted
    from sttd.ops import logs

    check(config)
    local = local_config(config)
    entry = wanted(local) if local else None
    logs.set_up(config.log)
    for warning in loaded.warnings:
        logger.warning("%s", warning)

    import trio

    from sttd.server import Daemon

    daemon = Daemon(config, lambda: load_settings(arguments).config)

    def announce(listeners: list[Listener]) -> None:
        with suppress(OSError):  # nobody reads it
            _announce(daemon, local, listeners, entry)

    trio.run(daemon.run, announce, _leave_soon)
    logs.finish()
    with suppress(OSError):  # a terminal that is gone
        sys.stdout.flush()
    # Abandoned decodes may still run in worker threads; leaving through them could only fail.
    os._exit(0)


def _leave_soon() -> None:
    """End the process in any case: a call into a recognizer that hangs cannot be interrupted."""
    timer = threading.Timer(LEAVE_S, os._exit, (0,))
    timer.daemon = True
    timer.start()


def _announce(daemon: Daemon, local: Config | None, listeners: list[Listener], entry: Entry | None) -> None:
    from sttd.models.store import resolve
    from sttd.ops.sockets import Kind
    from sttd.protocols.json_events import JsonEvents
    from sttd.protocols.registry import PROTOCOLS
    from sttd.protocols.vosk_server import VoskServer

    model, missing = "", False
    if local is not None:
        try:
            model = resolve(local).name if entry or local.model else ""
        except (ModelMissing, ModelError):  # clients are told which
            model, missing = entry.name if entry else local.model, True
    named = f" ({model})" if model else ""
    provider = daemon.provider
    if not provider.destination:
        print(f"sttd {__version__} serves {provider.name}{named}")
    else:
        where = provider.destination
        print(f"sttd {__version__} serves {provider.name} ({provider.model}): it sends all audio to {where}")
        print(f"  falls back on {local.provider}{named}" if local else "  without a fallback on this machine")
    schemes = {Kind.PLAIN: "ws", Kind.TLS: "wss"}
    urls = [f"{schemes[one.kind]}://{one.address}" for one in listeners if one.kind in schemes]
    for protocol in PROTOCOLS:
        print(f"  {protocol.title:12}", "  ".join(f"{url}{protocol.path}" for url in urls))
    if vosk := [f"ws://{one.address}" for one in listeners if one.kind is Kind.VOSK_SERVER]:
        print(f"  {VoskServer.title:12}", "  ".join(vosk), " (any path)")
    if wyoming := [one.address for one in listeners if one.kind is Kind.WYOMING]:
        print(f"  {'Wyoming':12}", "  ".join(f"{'unix' if '/' in one else 'tcp'}://{one}" for one in wyoming))
    if health := [one.address for one in listeners if one.kind is Kind.HEALTH]:
        print(f"  {'health':12}", "  ".join(f"http://{address}/readyz" for address in health))
    if any(one.address.startswith("[::]:") for one in listeners):
        print("  [::] is every address of IPv6 alone; 0.0.0.0 is every one of IPv4")
    if missing:
        print(f"The model {model} is not here; fetch it with: {_myself()} models pull {model}")
    _announce_page([one for one in listeners if one.kind in schemes and "/" not in one.address])
    if urls:
        print(f"Try it: {_myself()} transcribe --url {urls[-1]}{JsonEvents.path}")
    sys.stdout.flush()


def _announce_page(listeners: list[Listener]) -> None:
    """Print the address of the page; browsers give the microphone to pages over TLS, and from this machine, alone."""
    from sttd.http.access import is_loopback
    from sttd.ops.sockets import Kind

    for one in sorted(listeners, key=lambda one: (one.kind is not Kind.TLS, not is_loopback(one.host)))[:1]:
        scheme = "https" if one.kind is Kind.TLS else "http"
        everywhere = one.host in ("0.0.0.0", "::")  # noqa: S104
        address = f"localhost:{one.address.rpartition(':')[2]}" if everywhere else one.address
        secure = one.kind is Kind.TLS or everywhere or is_loopback(one.host)
        how = "and speak" if secure else "but for the microphone it needs TLS (docs/web.md)"
        print(f"Open {scheme}://{address}/ in a browser, {how}.")


def _myself() -> str:
    program = Path(sys.argv[0])
    if program.name == "sttd" and shutil.which("sttd") != str(program.resolve()):
        return shlex.quote(os.path.relpath(program) if program.is_relative_to(Path.cwd()) else str(program))
    return "sttd" if program.name == "sttd" else f"{shlex.quote(sys.executable)} -m sttd"


def check(config: Config) -> None:
    """Raise ConfigError if sttd cannot serve with these settings."""
    from sttd.http.access import Access
    from sttd.ops.sockets import Kind, addresses, tls_context
    from sttd.wyoming import Peers

    access = Access.read(config.access)
    peers = Peers.read(config)
    for address in addresses(config):
        if address.kind is Kind.WYOMING:
            peers.check_address(address.host)
        elif address.kind is not Kind.HEALTH:
            access.check_address(address.host)
    tls_context(config.server)
