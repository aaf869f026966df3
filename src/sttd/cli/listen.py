"""`sttd listen`: this machine's microphone, turned into text by a daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sttd.cli.options import URL

if TYPE_CHECKING:
    import argparse

    from sttd.cli.options import Parser

NAME, HELP = "listen", "turn what the microphone hears into text"


def add_options(parser: Parser) -> None:
    """Say what the command takes."""
    parser.add_argument("--url", default=URL, help="address of the daemon, or unix:/path (default: %(default)s)")
    parser.add_argument("--language", default="", metavar="CODE", help="language that is spoken")
    parser.add_argument("--device", default="", metavar="NAME", help="number of a microphone, or a part of its name")
    parser.add_argument("--list-devices", action="store_true", help="print the microphones, the default one marked")
    how = "listen only from one press of the space key to the next; without a terminal, from line to line of its input"
    parser.add_argument("--push-to-talk", action="store_true", help=how)
    parser.add_argument(
        "--exec", default="", metavar="CMD", help="run a command for each final; the text is its last argument"
    )
    parser.add_argument("--json", action="store_true", help="print the events of the JSON protocol, one a line")


def run(arguments: argparse.Namespace) -> int:
    """Listen until a signal ends it."""
    from sttd.cli.listening import list_devices, listen

    return list_devices() if arguments.list_devices else listen(arguments)
