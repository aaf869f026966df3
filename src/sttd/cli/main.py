"""The command line: `sttd`. Heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import os
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, NoReturn

from sttd import __version__
from sttd.cli import bench, check_config, completion, doctor, listen, models, serve, transcribe
from sttd.cli.options import Parser, add_settings, suggestion
from sttd.errors import SttdError

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130
COMMANDS = {
    "speech to text": (transcribe, listen),
    "the daemon": (serve, check_config),
    "this machine": (models, doctor, bench, completion),
}
"""The modules of the commands, in groups. Each has NAME, HELP, `add_options` and `run`."""


def parser(*, overview: bool = True) -> Parser:
    """Return the parser of the command line; its help has all commands in groups if `overview` is set."""
    found = Parser(
        prog="sttd",
        description="Speech to text, on your own box. Without a command sttd runs the daemon, as `sttd serve` does.",
        usage="sttd [COMMAND] [OPTION]...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_overview() if overview else "",
    )
    add_settings(found)
    found.add_argument("--version", action="version", version=f"sttd {__version__}", help="print the version")
    found.set_defaults(run=serve.run, parser=found, manual=manual)
    commands = found.add_subparsers(
        title="commands",
        prog="sttd",
        metavar="COMMAND",
        parser_class=Parser,
        help=argparse.SUPPRESS if overview else "",
    )
    for group in COMMANDS.values():
        for module in group:
            command = commands.add_parser(module.NAME, help=module.HELP, description=f"{_sentence(module.HELP)}.")
            command.set_defaults(run=module.run, parser=command)
            module.add_options(command)
    return found


def manual() -> Parser:
    """Return the parser for the manual page (`make man`) and for `sttd completion`."""
    return parser(overview=False)


def _overview() -> str:
    lines = []
    for title, group in COMMANDS.items():
        lines += [f"{title}:", *(f"  {module.NAME:14}{module.HELP}" for module in group), ""]
    return "\n".join([*lines, "`sttd COMMAND --help` has a command's own options."])


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments. argparse takes no files behind an option that is behind files: those are added here."""
    arguments, rest = parser().parse_known_args(argv)
    options = [part for part in rest if part.startswith("-")]
    if options or (rest and arguments.run is not transcribe.run):
        hint = suggestion(options[0].partition("=")[0], arguments.parser.options()) if options else ""
        arguments.parser.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
    if rest:
        arguments.file += rest
    return arguments


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
    arguments = _parsed(argv)
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
