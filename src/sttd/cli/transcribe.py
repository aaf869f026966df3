"""`sttd transcribe`: the text of recordings, by a running daemon or by one that is started for it."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from importlib.resources import files
from typing import TYPE_CHECKING

from sttd.cli.options import FILES, FOLDERS, URL, completed, model_names, token
from sttd.errors import ConfigError, RecognitionError

if TYPE_CHECKING:
    import argparse

    from sttd.cli.options import Parser

NAME, HELP = "transcribe", "print the text of recordings, or of raw audio on standard input"
FORMATS = ("txt", "srt", "vtt", "json", "tsv")
SOME_FAILED = 1


def add_options(parser: Parser) -> None:
    """Say what the command takes."""
    what = "media files, folders or patterns; - for raw audio, 16 kHz s16 mono, on standard input (default: a sample)"
    completed(parser.add_argument("file", nargs="*", help=what), FILES)
    where = f"address of a daemon, or unix:/path; may be repeated, to share the work (default: {URL})"
    parser.add_argument("--url", action="append", help=where)
    parser.add_argument("--local", action="store_true", help="use no running daemon: load the model for this command")
    parser.add_argument("--provider", metavar="NAME", help="with --local: the provider")
    completed(parser.add_argument("--model", metavar="NAME|DIR", help="with --local: the model"), model_names())
    parser.add_argument("--language", default="", metavar="CODE", help="language that is spoken")
    parser.add_argument(
        "-f",
        "--format",
        choices=FORMATS,
        default="txt",
        metavar="FORM",
        help=f"one of {', '.join(FORMATS)} (%(default)s)",
    )
    text = "write a file for each recording; skip what is done"
    completed(parser.add_argument("-o", "--output", default="", metavar="DIR", help=text), FOLDERS)
    parser.add_argument(
        "-j", "--jobs", type=int, default=2, metavar="N", help="recordings at once at each daemon (%(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print or write the texts."""
    if arguments.jobs < 1:
        raise ConfigError("--jobs is 1 or more")
    if (arguments.model or arguments.provider) and not arguments.local:
        raise ConfigError("--model and --provider are for --local: a running daemon has its own")
    if arguments.local and arguments.url:
        raise ConfigError("--local uses no running daemon, so it takes no --url")
    if arguments.file in ([], ["-"]) and not arguments.local and arguments.format == "txt" and not arguments.output:
        return _live(arguments)
    if "-" in arguments.file:
        raise ConfigError("- stands alone, without --local, --format and --output")
    return _files(arguments)


def _files(arguments: argparse.Namespace) -> int:
    import trio

    from sttd.cli.files import Batch, jobs
    from sttd.cli.own_daemon import own_daemon
    from sttd.cli.upload import Endpoint

    work = jobs(arguments.file or [str(files("sttd").joinpath("sample.wav"))], arguments.output, arguments.format)
    fields = {"language": arguments.language} if arguments.language else {}
    chosen = [
        part for name in ("provider", "model") if (value := vars(arguments)[name]) for part in (f"--{name}", value)
    ]
    with own_daemon(chosen) if arguments.local else nullcontext() as own:
        addresses = [own.address] if own else arguments.url or [URL]
        endpoints = [Endpoint(address, token()) for address in addresses]
        batch = Batch(work, endpoints, arguments.format, fields)
        trio.run(batch.run, arguments.jobs)
    if batch.failures and len(work) > 1:
        print(f"sttd: {len(batch.failures)} of {len(work)} recordings failed", file=sys.stderr)
    return SOME_FAILED if batch.failures else 0


def _live(arguments: argparse.Namespace) -> int:
    """Send a stream; partials are shown on a terminal."""
    import trio

    from sttd.cli.client import Stream, transcribe
    from sttd.cli.screen import Screen

    screen = Screen()
    url = (arguments.url or [URL])[0]
    options = {"language": arguments.language} if arguments.language else {}
    trio.run(transcribe, url, token(), Stream(sample=not arguments.file), options, screen.show)
    return RecognitionError.exit_code if screen.errors else 0
