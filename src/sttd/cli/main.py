"""The command line: `sttd`. Heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, NoReturn

from sttd import __version__
from sttd.cli import check_config, doctor, models, serve, transcribe
from sttd.cli.options import Parser, common_options
from sttd.errors import SttdError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

INTERRUPTED = 130


def _parser() -> Parser:
    common = common_options()
    parser = Parser(prog="sttd", description="Speech to text over WebSockets, on your own box.", parents=[common])
    parser.add_argument("--version", action="version", version=f"sttd {__version__}")
    parser.set_defaults(run=serve.run)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)

    serving = commands.add_parser("serve", parents=[common], help="run the daemon (what plain `sttd` does)")
    serving.set_defaults(run=serve.run)

    checking = commands.add_parser("check-config", parents=[common], help="print all settings and where they come from")
    checking.set_defaults(run=check_config.run)

    sending = commands.add_parser("transcribe", help="send a recording to a running daemon and print the text")
    transcribe.add_options(sending)
    sending.set_defaults(run=transcribe.run)

    looking = commands.add_parser("doctor", parents=[common], help="say what is wrong on this machine, and what to do")
    doctor.add_options(looking)
    looking.set_defaults(run=doctor.run)

    managing = commands.add_parser("models", help="list, fetch, find, remove and check models")
    models.add_actions(managing, common)
    return parser


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments. argparse takes no files behind an option that is behind files: those are added here."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and (arguments.run is not transcribe.run or any(part.startswith("-") for part in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
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
