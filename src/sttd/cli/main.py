"""The command line. Heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import shutil
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from importlib.resources import files
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from sttd import __version__
from sttd.config.config import Config, Loaded, load
from sttd.config.settings import settings_of, value_of
from sttd.errors import ConfigError, ModelMissing, RecognitionError, SttdError
from sttd.providers.registry import local_config, provider_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sttd.models.catalog import Entry
    from sttd.ops.sockets import Listener
    from sttd.server import Daemon

logger = logging.getLogger(__name__)
USAGE, INTERRUPTED = 64, 130
LEAVE_S = 2.0
"""After all is said, for tasks to end."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def _common() -> _Parser:
    common = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--config", metavar="FILE", help="TOML file (default: /etc/sttd/sttd.toml if there)")
    common.add_argument("--provider", metavar="NAME", help=f"one of {', '.join(provider_names())}")
    common.add_argument("--model", metavar="NAME|DIR", help="catalog name or folder of a model")
    common.add_argument("--language", metavar="CODE", help="language of sessions that name none")
    common.add_argument("--listen", metavar="HOST:PORT", action="append", help="address to listen on; may be repeated")
    common.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error")
    common.add_argument(
        "--set", metavar="KEY=VALUE", action="append", help="any setting, such as endpoint.min_silence_ms=300"
    )
    return common


def _parser() -> _Parser:
    common = _common()
    parser = _Parser(
        prog="sttd",
        description="Speech to text over WebSockets, on your own box.",
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"sttd {__version__}")
    parser.set_defaults(run=_serve)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)

    serve = commands.add_parser("serve", parents=[common], help="run the daemon (what plain `sttd` does)")
    serve.set_defaults(run=_serve)

    check = commands.add_parser("check-config", parents=[common], help="print all settings and where they come from")
    check.set_defaults(run=_check_config)

    talk = commands.add_parser("transcribe", help="send a recording to a running daemon and print the text")
    talk.add_argument(
        "file", nargs="?", help="WAV file, or - for raw 16 kHz s16 mono on standard input (default: a sample)"
    )
    talk.add_argument("--url", default="ws://127.0.0.1:3000/ws/stt", help="the daemon's JSON endpoint (%(default)s)")
    talk.add_argument("--language", default="", metavar="CODE")
    talk.set_defaults(run=_transcribe)

    models = commands.add_parser("models", help="list, fetch, find, remove and check models")
    actions = models.add_subparsers(title="actions", metavar="ACTION", parser_class=_Parser, required=True)
    listing = actions.add_parser("list", parents=[common], help="what there is, and what is here")
    listing.set_defaults(run=_models_list)
    for name, run, text in (
        ("pull", _models_pull, "fetch a model (default: the one that sttd would serve)"),
        ("path", _models_path, "print where a model lies"),
        ("rm", _models_rm, "delete a model"),
        (
            "verify",
            _models_verify,
            "check a model's files against their SHA-256 (default: all that are here)",
        ),
    ):
        action = actions.add_parser(name, parents=[common], help=text)
        action.add_argument(
            "name", nargs="+" if name == "rm" else "*", help="model's name, as `sttd models list` has it"
        )
        action.set_defaults(run=run)
    return parser


def _load(arguments: argparse.Namespace) -> Loaded:
    given = vars(arguments)
    values: dict[str, str] = {key: given[key] for key in ("provider", "model", "language") if key in given}
    if "listen" in given:
        values["server.listen"] = ",".join(given["listen"])
    if "log_level" in given:
        values["log.level"] = given["log_level"]
    for assignment in given.get("set", ()):
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment}: is not KEY=VALUE")
        values[key] = value
    file = Path(given["config"]) if "config" in given else None
    return load(values, file=file, providers=provider_names())


def _serve(arguments: argparse.Namespace) -> int:
    loaded = _load(arguments)
    config = loaded.config
    from sttd.models.store import wanted
    from sttd.ops import logs

    _check(config)
    local = local_config(config)
    entry = wanted(local) if local else None
    logs.set_up(config.log)
    for warning in loaded.warnings:
        logger.warning("%s", warning)

    import trio

    from sttd.server import Daemon

    daemon = Daemon(config, lambda: _load(arguments).config)

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


def _check(config: Config) -> None:
    """ConfigError where sttd would not serve as it is told."""
    from sttd.http.access import Access
    from sttd.ops.sockets import Kind, addresses, tls_context

    access = Access.read(config.access)
    for host, _port, kind in addresses(config.server):
        if kind is not Kind.HEALTH:
            access.check_address(host)
    tls_context(config.server)


def _announce(daemon: Daemon, local: Config | None, listeners: list[Listener], entry: Entry | None) -> None:
    from sttd.models.store import resolve
    from sttd.ops.sockets import Kind
    from sttd.protocols.json_events import JsonEvents
    from sttd.protocols.plain import PlainText

    model, missing = "", False
    if local is not None:
        try:
            model = resolve(local).name if entry or local.model else ""
        except ModelMissing:
            model, missing = entry.name if entry else local.model, True
    named = f" ({model})" if model else ""
    provider = daemon.provider
    if not provider.destination:
        print(f"sttd {__version__} serves {provider.name}{named}")
    else:
        where = provider.destination
        print(f"sttd {__version__} serves {provider.name} ({provider.model}): what is said is sent to {where}")
        print(f"  falls back on {local.provider}{named}" if local else "  without a fallback on this machine")
    schemes = {Kind.PLAIN: "ws", Kind.TLS: "wss"}
    urls = [f"{schemes[one.kind]}://{one.address}" for one in listeners if one.kind in schemes]
    for protocol, what in ((PlainText, "plain text"), (JsonEvents, "JSON events")):
        print(f"  {what:12}", "  ".join(f"{url}{protocol.path}" for url in urls))
    if health := [one.address for one in listeners if one.kind is Kind.HEALTH]:
        print(f"  {'health':12}", "  ".join(f"http://{address}/readyz" for address in health))
    if any(one.address.startswith("[::]:") for one in listeners):
        print("  [::] is every address of IPv6 alone; 0.0.0.0 is every one of IPv4")
    if missing:
        print(f"The model {model} is not here; fetch it with: {_myself()} models pull {model}")
    print(f"Try it: {_myself()} transcribe --url {urls[-1]}{JsonEvents.path}", flush=True)


def _myself() -> str:
    program = Path(sys.argv[0])
    if program.name == "sttd" and shutil.which("sttd") != str(program.resolve()):
        return shlex.quote(os.path.relpath(program) if program.is_relative_to(Path.cwd()) else str(program))
    return "sttd" if program.name == "sttd" else f"{shlex.quote(sys.executable)} -m sttd"


def _check_config(arguments: argparse.Namespace) -> int:
    from sttd.models.store import wanted

    loaded = _load(arguments)
    _check(loaded.config)
    if local := local_config(loaded.config):
        wanted(local)
    for key, found in settings_of(Config).items():
        print(f"{key} = {_toml(value_of(loaded.config, key))}  # {loaded.origins[key]}; {found.help}")
    for warning in loaded.warnings:
        print(f"sttd: {warning}", file=sys.stderr)
    return 0


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _transcribe(arguments: argparse.Namespace) -> int:
    import trio

    from sttd.cli.client import Recording, transcribe

    live = sys.stderr.isatty()
    complaints = 0

    def show(kind: str, text: str) -> None:
        nonlocal complaints
        if kind == "partial" and live:
            print(
                f"\r\x1b[K\x1b[2m{text[-(shutil.get_terminal_size().columns - 1) :]}\x1b[0m",
                end="",
                file=sys.stderr,
                flush=True,
            )
        elif kind == "final":
            print("\r\x1b[K" if live else "", end="", file=sys.stderr, flush=True)
            print(text, flush=True)
        elif kind == "error":  # the session may go on
            print(f"sttd: {text}", file=sys.stderr, flush=True)
            complaints += 1

    path = arguments.file or str(files("sttd").joinpath("sample.wav"))
    options = {"language": arguments.language} if arguments.language else {}
    with Recording(path) as recording:
        trio.run(transcribe, arguments.url, recording, options, show)
    return RecognitionError.exit_code if complaints else 0


def _entries(arguments: argparse.Namespace, config: Config) -> list[Entry]:
    from sttd.models.catalog import catalog
    from sttd.models.store import wanted

    if not arguments.name:
        local = local_config(config)
        entry = wanted(local) if local else None
        return [entry] if entry else []
    found = []
    for name in arguments.name:
        provider = next(
            (entry.provider for entry in catalog().values() if name in (entry.name, *entry.aliases)),
            config.provider,
        )
        entry = wanted(replace(config, model=name, provider=provider))
        if entry is None:
            raise ConfigError(f"{name} is a folder, not a model of the catalog")
        found.append(entry)
    return found


def _models_list(arguments: argparse.Namespace) -> int:
    from sttd.models.catalog import catalog
    from sttd.models.store import Store

    store = Store.of(_load(arguments).config)
    print(f"{'':2}{'NAME':20} {'PROVIDER':15} {'LANGUAGES':10} {'MB':>5}  LICENCE")
    for entry in catalog().values():
        here = "*" if store.has(entry) else ""
        languages = ",".join(entry.languages) or "many"
        print(f"{here:2}{entry.name:20} {entry.provider:15} {languages:10} {entry.megabytes:5}  {entry.licence}")
    print(f"* is in {store.root}")
    return 0


def _models_pull(arguments: argparse.Namespace) -> int:
    from sttd.models.store import Store

    config = _load(arguments).config
    store = Store.of(config)
    for entry in _entries(arguments, config):
        if store.has(entry):
            print(f"{entry.name} is here already: {store.path(entry)}")
            continue
        print(f"Pulling {entry.name} ({entry.megabytes} MB, {entry.licence})", file=sys.stderr)
        path = store.pull(entry, _Progress(), lambda text: print(text, file=sys.stderr))
        print(f"{entry.name}: {path}")
    return 0


def _models_path(arguments: argparse.Namespace) -> int:
    from sttd.models.store import Store

    config = _load(arguments).config
    store = Store.of(config)
    for entry in _entries(arguments, config):
        if not store.has(entry):
            raise ModelMissing(f"the model {entry.name} is not here; fetch it with: sttd models pull {entry.name}")
        print(store.path(entry))
    return 0


def _models_rm(arguments: argparse.Namespace) -> int:
    from sttd.models.store import Store

    config = _load(arguments).config
    for entry in _entries(arguments, config):
        Store.of(config).remove(entry)
    return 0


def _models_verify(arguments: argparse.Namespace) -> int:
    from sttd.models.catalog import catalog
    from sttd.models.store import Store

    config = _load(arguments).config
    store = Store.of(config)
    chosen = _entries(arguments, config) if arguments.name else [e for e in catalog().values() if store.has(e)]
    worst = 0
    for entry in chosen:
        try:
            print(f"{entry.name}: {store.verify(entry)}")
        except SttdError as error:
            print(f"{entry.name}: damaged or missing: {error}; sttd models rm and pull it again")
            worst = error.exit_code
    return worst


class _Progress:
    """A progress bar on a terminal, a line every ten percent elsewhere."""

    def __init__(self) -> None:
        self._shown = 0.0
        self._tenth = ("", -1)

    def __call__(self, name: str, done: int, total: int) -> None:
        """See sttd.models.sources.Progress."""
        finished = done == total
        if sys.stderr.isatty():
            if finished or time.monotonic() - self._shown > 0.1:
                self._shown = time.monotonic()
                filled = 30 * done // total if total else 0
                bar = f"[{'#' * filled}{'.' * (30 - filled)}] {100 * done // total:3}%" if total else ""
                end = "\n" if finished else ""
                print(
                    f"\r\x1b[K{name:16} {bar} {done / 1e6:.1f} of {total / 1e6:.1f} MB",
                    end=end,
                    file=sys.stderr,
                    flush=True,
                )
        elif total and (name, 10 * done // total) != self._tenth:
            self._tenth = (name, 10 * done // total)
            print(f"{name} {100 * done // total}%", file=sys.stderr, flush=True)


def _open_standard_streams() -> None:
    """Open those that whoever started sttd has closed: else the first sockets would take their places."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without the letters of a text


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its code."""
    _open_standard_streams()
    arguments = _parser().parse_args(argv)
    try:
        code = arguments.run(arguments)
    except SttdError as error:
        print(f"sttd: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("\nsttd: interrupted", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
