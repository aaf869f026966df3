"""`sttd completion`: what makes a shell complete the arguments of sttd."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from sttd.cli.options import Parser

NAME, HELP = "completion", "print a script with which a shell completes arguments of sttd"
SHELLS = ("bash", "zsh", "fish")


def add_options(parser: Parser) -> None:
    """Say what the command takes."""
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"one of {', '.join(SHELLS)}")


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    print(shtab.complete(arguments.manual(), arguments.shell))
    return 0
