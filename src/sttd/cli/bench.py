"""`sttd bench`: measure this machine with each model that is here, and recommend settings."""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from sttd.cli.options import add_settings, completed, load_settings, model_names
from sttd.errors import ConfigError, ModelMissing, SttdError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from sttd.cli.options import Parser
    from sttd.cli.sizing import Size
    from sttd.models.catalog import Entry
    from sttd.models.store import Store

NAME, HELP = "bench", "measure this machine, and recommend a model and settings"
SILENT_PER_SPEAKER = 4
"""Open microphones for each one that somebody speaks into."""
MIN_CONNECTIONS = 8
FASTER = 0.9
"""A setting is recommended if a text comes within this part of the time."""
HEAD = f"{'MODEL':20}{'LOADED':>8}{'SPEED':>8}{'FINAL':>9}{'STREAMS':>9}{'MEMORY':>10}{'A STREAM':>10}"
LEGEND = """SPEED    seconds of a recording that are transcribed in a second
FINAL    from the end of speech to the text, with one live stream; half a second of it is silence
STREAMS  people who may speak at once and have their texts within a second
MEMORY   of the daemon with the model, and what each live stream adds"""


def add_options(parser: Parser) -> None:
    """Say what the command takes."""
    add_settings(parser, "--config", "--language", "--set")
    names = parser.add_argument("name", nargs="*", help="models to measure (default: all that are here)")
    completed(names, model_names())
    parser.add_argument("--json", action="store_true", help="print the figures and the settings as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each model, then the settings."""
    from sttd.models.store import Store

    config = load_settings(arguments).config
    store = Store.of(config)
    given = vars(arguments)
    options = ["--set", f"models.dir={store.root}", "--set", "faster_whisper.workers=0"]
    options += [part for name in ("config", "language") if name in given for part in (f"--{name}", given[name])]
    options += [part for assignment in given.get("set", ()) for part in ("--set", assignment)]
    bench = _Bench(options, quiet=arguments.json)
    entries = _entries(arguments.name, store)
    sizes = [size for entry in entries if (size := bench.measured(entry.provider, entry.name))]
    if not sizes:
        raise ModelMissing("no model could be measured")
    best = _best(sizes, entries, config.language)
    settings: dict[str, str | int] = {"provider": best.provider, "model": best.model, **bench.workers(best)}
    settings["limits.connections"] = max(MIN_CONNECTIONS, SILENT_PER_SPEAKER * best.streams)
    if arguments.json:
        models = [{**asdict(size), "latency_s": _finite(size.latency_s)} for size in sizes]
        print(json.dumps({"models": models, "settings": settings}, indent=1))
        return 0
    print(f"\n{LEGEND}\n\nFor {os.cpu_count()} cores, in /etc/sttd/sttd.toml:\n\n{_toml(settings)}")
    if not best.streams:
        print("\nNo model has its texts within a second here; this one comes nearest.")
    return 0


def _finite(latencies: dict[int, float]) -> dict[int, float | None]:
    return {count: round(value, 3) if math.isfinite(value) else None for count, value in latencies.items()}


def _entries(names: Sequence[str], store: Store) -> list[Entry]:
    from sttd.models.catalog import catalog, find

    chosen = [find(name) for name in names] if names else list(catalog().values())
    found = [entry for entry in chosen if entry and store.has(entry)]
    for name, entry in zip(names, chosen, strict=False):
        if entry is None:
            raise ConfigError(f"there is no model {name}; sttd models list has their names")
        if entry not in found:
            raise ModelMissing(f"the model {name} is not here; fetch it with: sttd models pull {name}")
    if not found:
        raise ModelMissing("there is no model to measure; fetch one with: sttd models pull")
    return found


class _Bench:
    """Measures, and shows what it measures. `options` are those of `sttd serve`."""

    def __init__(self, options: Sequence[str], *, quiet: bool) -> None:
        self._options = options
        self._quiet = quiet
        self._terminal = sys.stderr.isatty() and not quiet
        if not quiet:
            print(HEAD, flush=True)

    def measured(self, provider: str, model: str) -> Size | None:
        """Measure a model and print its line. Returns None, and says why, if it cannot be measured."""
        found = self._size(provider, model)
        if found and not self._quiet:
            times = f"{found.load_s:6.1f} s{found.times_as_fast:7.1f}x{found.latency_s[1]:7.2f} s"
            memory = f"{found.memory_mb:7.0f} MB{found.session_mb:7.1f} MB"
            print(f"{model:20}{times}{found.streams:9}{memory}", flush=True)
        return found

    def workers(self, best: Size) -> dict[str, int]:
        """Return the number of Whisper's workers, if one with all cores does better than the default."""
        if best.provider != "faster_whisper" or (os.cpu_count() or 1) < 2 or not best.streams:
            return {}
        one = self._size(
            best.provider, best.model, "--set", "faster_whisper.workers=1", counts=sorted({1, best.streams})
        )
        better = one and one.streams == best.streams and one.latency_s[1] < FASTER * best.latency_s[1]
        return {"faster_whisper.workers": 1} if better else {}

    def _size(self, provider: str, model: str, *options: str, counts: Sequence[int] = ()) -> Size | None:
        from sttd.cli.sizing import size

        try:
            chosen = [*self._options, *options]
            return size(model, provider, chosen, lambda what: self._show(f"{model}: {what} ..."), counts)
        except SttdError as error:
            print(f"sttd: {model}: {error}", file=sys.stderr, flush=True)
            return None
        finally:
            self._show("")

    def _show(self, what: str) -> None:
        if self._terminal:
            print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)


def _best(sizes: Sequence[Size], entries: Sequence[Entry], language: str) -> Size:
    """Return the largest Whisper that is in time, else the largest model that is; else the fastest.

    Of models for other languages than `language` none is taken, unless there is nothing else.
    """
    about = {entry.name: entry for entry in entries}

    def rank(one: Size) -> tuple[bool, bool, bool, float]:
        entry = about[one.model]
        understands = not language or not entry.languages or language in entry.languages
        in_time = one.streams > 0
        return understands, in_time, one.provider == "faster_whisper", entry.megabytes if in_time else -one.latency_s[1]

    return max(sizes, key=rank)


def _toml(settings: dict[str, str | int]) -> str:
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items() if "." not in key]
    for key, value in settings.items():
        table, _, name = key.partition(".")
        if name:
            lines += ["", f"[{table}]", f"{name} = {json.dumps(value)}"]
    return "\n".join(lines)
