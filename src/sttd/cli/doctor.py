"""`sttd doctor`: what this machine has for sttd, what is wrong, and what to do."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from sttd import __version__
from sttd.cli.options import add_settings, load_settings
from sttd.errors import SttdError
from sttd.providers.registry import local_config

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from sttd.cli.options import Parser
    from sttd.config.config import Config
    from sttd.ops.sockets import Address

NAME, HELP = "doctor", "say what is wrong on this machine, and what to do"
OK, WARNING, WRONG = "ok", "warning", "wrong"
MB = 1e6
PROCESS_MB = 150
"""Memory of the daemon without its model."""
MIN_FREE_MB = 500
SLOW, TOO_SLOW = 0.5, 1.0
"""Real-time factors: from SLOW on two people at once are too many, from TOO_SLOW on one is."""
SYSTEMCTL_S = 20.0


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the report: `state` is OK, WARNING or WRONG; `todo` says what to do, and is empty if all is well."""

    what: str
    state: str
    text: str
    todo: str = ""


def add_options(parser: Parser) -> None:
    """Say what the command takes."""
    add_settings(parser)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the findings as they come. Returns 1 if something is wrong."""
    found = []
    for finding in _findings(arguments):
        found.append(finding)
        if not arguments.json:
            print(f"{finding.state:8} {finding.what:11} {finding.text}", flush=True)
            if finding.todo:
                print(f"{'':20} -> {finding.todo}", flush=True)
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in found], ensure_ascii=False, indent=1))
    return int(any(finding.state == WRONG for finding in found))


def _findings(arguments: argparse.Namespace) -> Iterator[Finding]:
    yield from _machine()
    try:
        config = load_settings(arguments).config
    except SttdError as error:
        yield Finding("settings", WRONG, str(error), "mend it; sttd check-config prints all settings")
        return
    yield Finding("settings", OK, f"provider {config.provider}, model {config.model or 'by default'}")
    checks: tuple[Callable[[Config], Iterator[Finding]], ...] = (_room, _model, _ports, _service, _microphone)
    usable = True
    for check in checks:
        for finding in check(config):
            usable = usable and (finding.what, finding.state) != ("model", WRONG)
            yield finding
    if usable:
        yield from _decoding(config, arguments)


def _machine() -> Iterator[Finding]:
    wide = sys.maxsize > 2**32
    yield Finding(
        "python",
        OK if wide else WRONG,
        f"{platform.python_version()} on {platform.machine()}; sttd {__version__}",
        "" if wide else "install a 64-bit system: the recognizers have no 32-bit packages",
    )
    about = Path("/proc/cpuinfo").read_text(errors="replace")
    name = re.search(r"^(?:model name|Model)\s*: (.*)$", about, re.MULTILINE)
    flags = set((re.search(r"^(?:flags|Features)\s*: (.*)$", about, re.MULTILINE) or [""] * 2)[1].split())
    fast = flags & {"avx2", "asimddp"} or not flags
    yield Finding(
        "processor",
        OK if fast else WARNING,
        f"{len(os.sched_getaffinity(0))} cores{f', {name[1]}' if name else ''}",
        "" if fast else "it has no AVX2 (x86) or dot product (ARM), so Whisper is slow: prefer vosk",
    )


def _room(config: Config) -> Iterator[Finding]:
    from sttd.models.store import Store, wanted

    local = local_config(config)
    entry = None
    with suppress(SttdError):
        entry = wanted(local) if local else None
    free = _available_mb()
    need = PROCESS_MB + (entry.megabytes if entry else 0)
    yield Finding(
        "memory",
        OK if free >= need else WARNING,
        f"{free:.0f} MB are free; sttd takes about {need}",
        "" if free >= need else "choose a smaller model (sttd models list), or stop other programs",
    )
    store = Store.of(config)
    place = store.root
    while not place.exists() and place != place.parent:
        place = place.parent
    left = shutil.disk_usage(place).free / MB
    missing = entry is not None and not store.has(entry)
    enough = left >= MIN_FREE_MB + (2 * entry.megabytes if entry is not None and missing else 0)
    yield Finding(
        "disk",
        OK if enough else WARNING,
        f"{left:.0f} MB are free in {place}",
        "" if enough else "make room, or set models.dir to another disk",
    )


def _available_mb() -> float:
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) / 1000 if found else 0.0


def _model(config: Config) -> Iterator[Finding]:
    from sttd.models.catalog import catalog
    from sttd.models.store import Store, resolve

    local = local_config(config)
    if local is None:
        yield Finding("model", OK, f"{config.provider} is in the cloud: audio leaves this machine")
        return
    try:
        here = resolve(local)
        entry = catalog().get(here.name)
        text = f"{here.name} in {here.path}"
        yield Finding("model", OK, f"{text}: {Store.of(config).verify(entry)}" if entry else text)
    except SttdError as error:
        yield Finding("model", WRONG, str(error), "sttd models pull")


def _ports(config: Config) -> Iterator[Finding]:
    from sttd.ops.sockets import addresses

    for address in addresses(config):
        if address.path:
            continue
        try:
            with socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind((address.host, address.port))
        except OSError as error:
            if _answers(address):
                yield Finding("port", OK, f"{address}: sttd runs there")
            else:
                todo = "stop what uses it (ss -ltnp), or change server.listen"
                yield Finding("port", WRONG, f"{address}: {error.strerror}", todo)
        else:
            yield Finding("port", OK, f"{address} is free")


def _answers(address: Address) -> bool:
    """Return whether sttd answers there: to `/livez`, over TLS if it is such a listener, or to Wyoming's `describe`."""
    from sttd.ops.sockets import Kind

    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104
    request, answer = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"\r\n\r\nok\n"
    if address.kind is Kind.WYOMING:
        request, answer = b'{"type": "describe"}\n', b'"info"'
    said = b""
    with suppress(OSError), ExitStack() as stack:
        client = stack.enter_context(socket.create_connection((host, address.port), timeout=2))
        if address.kind is Kind.TLS:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # only asked whether it lives
            client = stack.enter_context(context.wrap_socket(client))
        client.sendall(request)
        while answer not in said and (data := client.recv(1000)):
            said += data
    return answer in said


def _service(config: Config) -> Iterator[Finding]:  # noqa: ARG001
    if not Path("/run/systemd/system").exists():
        yield Finding("service", OK, "this machine has no systemd")
        return
    state = _systemd("systemctl", "show", "--value", "-p", "LoadState,ActiveState,SubState", "sttd.service").split()
    if "loaded" not in state:
        yield Finding("service", OK, "sttd is not installed as a service")
        return
    runs = "active" in state
    score = re.search(r"level for \S+: ([\d.]+ \w+)", _systemd("systemd-analyze", "security", "sttd.service"))
    exposure = f"; exposure {score[1]}" if score else ""
    todo = "" if runs else "journalctl -u sttd says why; systemctl start sttd"
    yield Finding("service", OK if runs else WARNING, f"sttd.service is {' '.join(state[1:])}{exposure}", todo)


def _systemd(*command: str) -> str:
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, check=False, timeout=SYSTEMCTL_S
        ).stdout
    return ""


def _microphone(config: Config) -> Iterator[Finding]:  # noqa: ARG001
    devices: list[str] = []
    with suppress(OSError):
        lines = Path("/proc/asound/pcm").read_text().splitlines()
        devices = [line.split(":")[1].strip() for line in lines if "capture" in line]
    text = ", ".join(devices) or "none here; browsers and other machines bring their own"
    yield Finding("microphone", OK, text)


def _decoding(config: Config, arguments: argparse.Namespace) -> Iterator[Finding]:
    """Decode a sentence with the real model, in a process of its own: a library may crash on this processor."""
    import wave

    from sttd.cli.own_daemon import own_daemon
    from sttd.cli.upload import Endpoint

    if local_config(config) != config:  # the provider is in the cloud: nothing is sent there unasked
        return
    given = vars(arguments)
    names = (("config", "--config"), ("provider", "--provider"), ("model", "--model"), ("language", "--language"))
    options = [part for name, option in names if name in given for part in (option, given[name])]
    options += [part for setting in given.get("set", ()) for part in ("--set", setting)]
    sample = Path(str(files("sttd").joinpath("sample.wav")))
    with wave.open(str(sample)) as file:
        length = file.getnframes() / file.getframerate()
    started = time.monotonic()
    try:
        with own_daemon(options) as daemon:
            loaded = time.monotonic() - started
            started = time.monotonic()
            found = Endpoint(daemon.address).transcribe(sample, {}, lambda _utterance: None)
            factor = (time.monotonic() - started) / length
    except SttdError as error:
        yield Finding("decoding", WRONG, str(error), "sttd models pull; or choose another model or provider")
        return
    text = " ".join(utterance.text for utterance in found.utterances)
    state = OK if factor < SLOW else WARNING if factor < TOO_SLOW else WRONG
    said = f"model loaded in {loaded:.1f} s; {1 / factor:.0f} times as fast as speech: {text[:40]!r} ..."
    todo = "" if state == OK else "choose a smaller model, or vosk: text will come late"
    yield Finding("decoding", state, said, todo)
