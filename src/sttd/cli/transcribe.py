"""`sttd transcribe`: send a recording to a running daemon and print the text."""

from __future__ import annotations

import shutil
import sys
from importlib.resources import files
from typing import TYPE_CHECKING

from sttd.errors import RecognitionError

if TYPE_CHECKING:
    import argparse

    from sttd.cli.options import Parser


def add_options(parser: Parser) -> None:
    """Say what the command takes."""
    parser.add_argument(
        "file", nargs="?", help="WAV file, or - for raw 16 kHz s16 mono on standard input (default: a sample)"
    )
    parser.add_argument("--url", default="ws://127.0.0.1:3000/ws/stt", help="the daemon's JSON endpoint (%(default)s)")
    parser.add_argument("--language", default="", metavar="CODE", help="language that is spoken")


def run(arguments: argparse.Namespace) -> int:
    """Print the text; partials are shown on a terminal."""
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
