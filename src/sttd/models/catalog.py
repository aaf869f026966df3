"""The catalog of known models, read from catalog.toml."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sttd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A place to download a model from. The meaning of the fields depends on `kind` (see catalog.toml)."""

    kind: str
    url: str = ""
    names: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    folder: str = ""
    join: Mapping[str, list[str]] = field(default_factory=dict)
    pinned: bool = True

    @property
    def host(self) -> str:
        """A short name of the place, for messages."""
        return urlsplit(self.url).hostname or "the package index"

    def __str__(self) -> str:
        return self.url or "the package index (" + ", ".join(self.require) + ")"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A model. `files` maps paths below the model's folder to SHA-256 digests; empty: no file is pinned."""

    name: str
    provider: str
    licence: str
    megabytes: int
    languages: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    default: bool = False
    note: str = ""
    sources: tuple[Source, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)

    def mirrored(self, urls: Sequence[str]) -> Entry:
        """Return this model with other sources: addresses of zip archives, or of folders with its files.

        Raises ConfigError if an address cannot be used.
        """
        names = next((source.names for source in self.sources if source.names), tuple(self.files))
        for url in urls:
            if not re.match(r"https?://[^/\[\]]+/?", url):
                raise ConfigError(f"--from {url}: an address begins with https:// or http://")
            if not names and not urlsplit(url).path.endswith(".zip"):
                raise ConfigError(f"--from {url}: the files of {self.name} are not known; give the address of a .zip")
        places = (
            Source(kind="zip", url=url, pinned=bool(self.files))
            if urlsplit(url).path.endswith(".zip")
            else Source(kind="files", url=url.rstrip("/") + "/", names=names, pinned=bool(self.files))
            for url in urls
        )
        return replace(self, sources=tuple(places))


def parse(text: str) -> dict[str, Entry]:
    """Return the entries of a catalog in TOML, by name."""
    found = {}
    for name, table in tomllib.loads(text)["models"].items():
        sources = tuple(Source(**{k: _frozen(v) for k, v in source.items()}) for source in table.pop("sources"))
        found[name] = Entry(name=name, sources=sources, **{key: _frozen(value) for key, value in table.items()})
    return found


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@cache
def catalog() -> Mapping[str, Entry]:
    """Return the models that this version knows, by name."""
    return parse(files("sttd.models").joinpath("catalog.toml").read_text("utf-8"))


def find(name: str, entries: Mapping[str, Entry] | None = None) -> Entry | None:
    """Return the entry with a name or alias; None if there is none."""
    entries = catalog() if entries is None else entries
    return entries.get(name) or next((entry for entry in entries.values() if name in entry.aliases), None)
