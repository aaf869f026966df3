"""The model store: folders `<root>/<provider>/<name>/`. A model is either complete and checked, or absent."""

from __future__ import annotations

import difflib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any

from sttd.errors import ConfigError, ModelError, ModelMissing, Unavailable
from sttd.models.catalog import Entry, Source, catalog, find
from sttd.models.sources import Progress, fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sttd.config.config import Config

MANIFEST = ".sttd.json"


@dataclass(frozen=True, slots=True)
class Installed:
    """A model on disk. `languages` is empty if they are unknown."""

    name: str
    path: Path
    languages: tuple[str, ...]


def default_root(environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder of the store if the setting `models.dir` is empty."""
    environ = os.environ if environ is None else environ
    if "STATE_DIRECTORY" in environ:  # set by systemd from StateDirectory=
        return Path(environ["STATE_DIRECTORY"].split(":")[0]) / "models"
    data = environ.get("XDG_DATA_HOME") or Path(environ.get("HOME") or Path.home()) / ".local/share"
    return Path(data) / "sttd" / "models"


class Store:
    """The models below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def of(cls, config: Config) -> Store:
        """Return the store that a configuration names."""
        return cls(_folder(config.models.dir) if config.models.dir else default_root())

    def path(self, entry: Entry) -> Path:
        """Return the folder of a model, whether it exists or not."""
        return self.root / entry.provider / entry.name

    def has(self, entry: Entry) -> bool:
        """Return whether a model is in the store. Raises ModelError if the store cannot be read."""
        try:
            return (self.path(entry) / MANIFEST).is_file()
        except OSError as error:
            raise ModelError(f"the model store {self.root} cannot be read: {error.strerror}") from None

    def pull(self, entry: Entry, progress: Progress, say: Callable[[str], None]) -> Path:
        """Download a model from the first source that works, and return its folder.

        `say` prints a message. A second pull of the same model waits for the first. The next pull resumes an
        interrupted one.

        Raises Unavailable if no source works, there is no space, or the store cannot be written.
        """
        target = self.path(entry)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with self._lock(entry, say):
                if self.has(entry):
                    return target
                self._check_space(entry)
                return self._pull_any(entry, progress, say)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise Unavailable(f"the model store {self.root} cannot be written: {error.strerror}") from None
            shutil.rmtree(self._partial(entry), ignore_errors=True)
            raise Unavailable(self._no_space(entry)) from None

    def _pull_any(self, entry: Entry, progress: Progress, say: Callable[[str], None]) -> Path:
        problems = []
        for number, source in enumerate(entry.sources):
            try:
                return self._pull_from(entry, number, source, progress)
            except (Unavailable, ModelError) as error:
                problems.append(f"  {error}")
                if number + 1 < len(entry.sources):
                    say(f"  not from {source.host}; trying {entry.sources[number + 1].host}")
        raise Unavailable(f"no source gave the model {entry.name}:\n" + "\n".join(problems))

    def _pull_from(self, entry: Entry, number: int, source: Source, progress: Progress) -> Path:
        partial = self._partial(entry) / str(number)
        partial.mkdir(parents=True, exist_ok=True)
        with self._staging() as staging:
            fetch(source, partial, staging, progress)
            try:
                self._add(entry, staging, str(source), pinned=source.pinned)
            except ModelError:
                shutil.rmtree(partial)
                raise
        shutil.rmtree(self._partial(entry), ignore_errors=True)
        return self.path(entry)

    def take(self, origin: str, fill: Callable[[Path], tuple[Entry, bool]]) -> tuple[Entry, Path]:
        """Add a model; return it and its folder.

        `fill` puts its files into a folder, and returns the model and whether its files are pinned. `origin` is kept
        for the record. Raises ModelError if a file is missing or differs from its digest, Unavailable if the store
        cannot be written.
        """
        try:
            with self._staging() as staging:
                entry, pinned = fill(staging)
                with self._lock(entry, lambda _text: None):
                    self._add(entry, staging, origin, pinned=pinned)
                return entry, self.path(entry)
        except OSError as error:
            raise Unavailable(f"the model store {self.root} cannot be written: {error.strerror}") from None

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        folder = self.root / ".staging"
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.iterdir():  # by a process that was killed
            if not Path("/proc", left.name.partition("-")[0]).exists():
                shutil.rmtree(left, ignore_errors=True)
        with TemporaryDirectory(dir=folder, prefix=f"{os.getpid()}-", ignore_cleanup_errors=True) as staging:
            files = Path(staging) / "files"
            files.mkdir(mode=0o755)
            yield files

    def _add(self, entry: Entry, staging: Path, origin: str, *, pinned: bool) -> None:
        """Check what is in `staging` and make it visible. Raises ModelError if a file is missing or differs."""
        digests = digests_of(staging)
        if pinned:
            _compare(entry, digests)
            for extra in digests.keys() - entry.files.keys():
                (staging / extra).unlink()
            digests = dict(entry.files)
        sizes = {name: (staging / name).stat().st_size for name in digests}
        manifest = {"model": entry.name, "source": origin, "pinned": pinned, "files": digests, "sizes": sizes}
        (staging / MANIFEST).write_text(json.dumps(manifest, indent=1))
        os.sync()
        target = self.path(entry)
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)

    def remove(self, entry: Entry) -> None:
        """Delete a model, and the files of an interrupted pull.

        Raises ModelMissing if there is neither, Unavailable if they cannot be deleted.
        """
        target, partial = self.path(entry), self._partial(entry)
        try:
            if not target.exists() and not partial.exists():
                raise ModelMissing(f"the model {entry.name} is not in {self.root}")
            with self._lock(entry, lambda _text: None):
                for folder in (target, partial):
                    if folder.exists():
                        shutil.rmtree(folder)
        except OSError as error:
            raise Unavailable(f"{entry.name} cannot be deleted: {error.filename}: {error.strerror}") from None

    def verify(self, entry: Entry) -> str:
        """Compare a model's files with their digests. Returns `ok`, or `unpinned` if the catalog has no digests and
        only those recorded by the pull could be compared.

        Raises ModelMissing if the model is not in the store, ModelError, naming the file, if a file is missing or
        differs.
        """
        if not self.has(entry):
            raise ModelMissing(f"the model {entry.name} is not in {self.root}")
        manifest = _manifest(self.path(entry))
        pinned, files = manifest.get("pinned"), manifest.get("files")
        if not isinstance(pinned, bool) or not isinstance(files, dict):
            raise ModelError(f"{entry.name}: the list of its files, {MANIFEST}, is damaged")
        expected = entry.files if pinned else files
        _compare(
            Entry(name=entry.name, provider="", licence="", megabytes=0, files=expected), digests_of(self.path(entry))
        )
        return "ok" if pinned else "unpinned"

    def _partial(self, entry: Entry) -> Path:
        return self.root / ".partial" / entry.name

    def _no_space(self, entry: Entry) -> str:
        return f"no space for the model {entry.name} in {self.root}: a pull needs {2 * entry.megabytes} MB"

    def _check_space(self, entry: Entry) -> None:
        if shutil.disk_usage(self.root).free < 2 * entry.megabytes << 20:
            raise Unavailable(self._no_space(entry))

    @contextmanager
    def _lock(self, entry: Entry, say: Callable[[str], None]) -> Iterator[IO[str]]:
        with (self.root / f".lock-{entry.name}").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another pull of {entry.name} to end")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file


def resolve(config: Config) -> Installed:
    """Return the model that a configuration names; without a name the provider's default if it is in the store, else
    the provider's only model in the store.

    Raises ModelMissing if there is no such model, ModelError if the store cannot be read.
    """
    store = Store.of(config)
    if config.model:
        entry, folder = find(config.model), _folder(config.model)
        if entry is None and os.path.isdir(folder):
            return Installed(folder.name, folder, ())
        there = [entry] if entry and store.has(entry) else []
    else:
        there = [entry for entry in catalog().values() if entry.provider == config.provider and store.has(entry)]
        there = [entry for entry in there if entry.default] or there
    if len(there) != 1:
        raise ModelMissing
    return Installed(there[0].name, store.path(there[0]), there[0].languages)


def wanted(config: Config) -> Entry | None:
    """Return the catalog entry that a configuration names; None for a folder.

    Raises ConfigError if the name is neither, or names a model of another provider.
    """
    if not config.model:
        mine = (entry for entry in catalog().values() if entry.provider == config.provider and entry.default)
        return next(mine, None)
    entry = find(config.model)
    mine_names = ", ".join(name for name, known in catalog().items() if known.provider == config.provider)
    if entry is None:
        if os.path.isdir(_folder(config.model)):
            return None
        close = difflib.get_close_matches(config.model, catalog(), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"model: {config.model!r} is neither a folder nor in the catalog ({mine_names}){hint}")
    if entry.provider != config.provider:
        raise ConfigError(
            f"model: {entry.name} is a model of {entry.provider}, not of {config.provider} ({mine_names})"
        )
    return entry


def check_sizes(folder: Path) -> None:
    """Raises ModelError, naming the file, if a file is missing or its size differs from that recorded by the pull."""
    manifest = _manifest(folder)
    sizes = manifest.get("sizes")
    for name, size in sizes.items() if isinstance(sizes, dict) else ():
        try:
            found = (folder / name).stat().st_size
        except OSError:
            raise ModelError(f"{folder.name}: the file {name} is missing; {_again(manifest)}") from None
        if found != size:
            raise ModelError(f"{folder.name}: the file {name} has {found} bytes, not {size}; {_again(manifest)}")


def check_digests(folder: Path) -> None:
    """Raises ModelError, naming the file, if a file's digest differs from that recorded by the pull."""
    manifest = _manifest(folder)
    if isinstance(files := manifest.get("files"), dict):
        entry = Entry(name=folder.name, provider="", licence="", megabytes=0, files=files)
        try:
            _compare(entry, digests_of(folder))
        except ModelError as error:
            raise ModelError(f"{error}; {_again(manifest)}") from None


def files_of(folder: Path) -> list[Path]:
    """Return all files of a model, sorted."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST]


def fingerprint(folder: Path) -> str:
    """Return a digest of all files' names, sizes and times of change. It changes when a file changes."""
    facts = [
        (path.relative_to(folder).as_posix(), (status := path.stat()).st_size, status.st_mtime_ns)
        for path in files_of(folder)
    ]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _manifest(folder: Path) -> dict[str, Any]:
    """Return the record of the pull; empty if the model was not pulled."""
    try:
        found = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _again(manifest: Mapping[str, Any]) -> str:
    name = manifest.get("model", "NAME")
    return f"pull the model again: sttd models rm {name}; sttd models pull {name}"


def _folder(name: str) -> Path:
    """Return a folder that a setting names. Nothing is raised for a `~` that stands for nobody."""
    return Path(os.path.expanduser(name))


def digests_of(folder: Path) -> dict[str, str]:
    """Raises ModelError, naming the file, if one cannot be read."""
    found = {}
    for path in files_of(folder):
        try:
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    return found


def _compare(entry: Entry, digests: Mapping[str, str]) -> None:
    for name, expected in entry.files.items():
        found = digests.get(name)
        if found is None:
            raise ModelError(f"{entry.name}: the file {name} is missing")
        if found != expected:
            raise ModelError(f"{entry.name}: the file {name} has SHA-256 {found}, not {expected}")
