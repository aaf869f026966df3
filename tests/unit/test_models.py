"""The model store, against a real HTTP server with ranges and faults."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sttd.config.config import Config, ModelsConfig
from sttd.errors import ConfigError, ModelError, ModelMissing, Unavailable
from sttd.models.catalog import Entry, Source, catalog, find
from sttd.models.store import Store, check_digests, check_sizes, default_root, resolve, wanted
from tests.support import ROOT, environment

BODY = os.urandom(300_000)


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; `cut` breaks off each body that begins before it, once."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.ranges: list[str | None] = []
        self.slow = 0.0
        self.tag = '"1"'

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted_range = self.headers.get("Range")
        self.server.ranges.append(wanted_range)
        body = self.server.files.get(self.path.lstrip("/"))
        if body is None:
            self.send_error(404)
            return
        start = 0
        if wanted_range and self.headers.get("If-Range") == self.server.tag:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted_range)[1])  # type: ignore[index]
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.end_headers()
                return
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", self.server.tag)
        self.end_headers()
        end = self.server.cuts.pop(0) if self.server.cuts else len(body)
        for at in range(start, min(end, len(body)), 20_000):
            self.wfile.write(body[at : min(at + 20_000, end)])
            time.sleep(self.server.slow)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Any:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def archive(files: dict[str, bytes], mode: int = 0o100644) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as zipped:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            zipped.writestr(info, content)
    return data.getvalue()


def zip_entry(server: Server, files: dict[str, str] | None = None) -> Entry:
    return Entry(
        name="test",
        provider="vosk",
        licence="none",
        megabytes=1,
        sources=(Source(kind="zip", url=server.url + "model.zip", pinned=files is not None),),
        files=files or {},
    )


def pull(tmp_path: Path, entry: Entry) -> Path:
    said: list[str] = []
    return Store(tmp_path).pull(entry, lambda name, done, total: None, said.append)


def left_over(tmp_path: Path) -> list[str]:
    """Everything in the store but models and locks."""
    return [str(path) for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith(".lock")]


@pytest.mark.parametrize(
    "manifest", [b"", b"{", b"[]", b"{}", b'{"pinned": true}', b'{"pinned": 1, "files": []}', b"\xff"]
)
def test_a_damaged_list_of_files_is_told(server: Server, tmp_path: Path, manifest: bytes) -> None:
    server.files["model.zip"] = archive({"top/README": b"hi"})
    entry = zip_entry(server, {"README": digest(b"hi")})
    (pull(tmp_path, entry) / ".sttd.json").write_bytes(manifest)
    with pytest.raises(ModelError, match=r"the list of its files, \.sttd\.json, is damaged"):
        Store(tmp_path).verify(entry)
    check_sizes(Store(tmp_path).path(entry))
    check_digests(Store(tmp_path).path(entry))


def test_what_changed_since_the_pull_is_named(server: Server, tmp_path: Path) -> None:
    server.files["model.zip"] = archive({"top/README": b"hi"})
    path = pull(tmp_path, zip_entry(server, {"README": digest(b"hi")}))
    check_sizes(path)
    check_digests(path)
    (path / "README").write_bytes(b"ho")
    check_sizes(path)
    with pytest.raises(ModelError, match="README has SHA-256"):
        check_digests(path)
    (path / "README").write_bytes(b"")
    with pytest.raises(ModelError, match="README has 0 bytes, not 2"):
        check_sizes(path)
    (path / "README").unlink()
    with pytest.raises(ModelError, match="README is missing"):
        check_sizes(path)


def test_a_model_that_cannot_be_deleted_is_told(server: Server, tmp_path: Path) -> None:
    server.files["model.zip"] = archive({"top/README": b"hi"})
    entry = zip_entry(server, {"README": digest(b"hi")})
    pull(tmp_path, entry)
    lock = tmp_path / f".lock-{entry.name}"
    lock.unlink()
    lock.mkdir()
    with pytest.raises(Unavailable, match="cannot be deleted"):
        Store(tmp_path).remove(entry)
    assert Store(tmp_path).has(entry)


def test_a_zip_is_fetched_checked_and_unpacked_without_its_top_folder(server: Server, tmp_path: Path) -> None:
    server.files["model.zip"] = archive({"top/README": b"hi", "top/am/final.mdl": BODY, "top/extra": b""})
    entry = zip_entry(server, {"README": digest(b"hi"), "am/final.mdl": digest(BODY)})
    path = pull(tmp_path, entry)
    assert (path / "am/final.mdl").read_bytes() == BODY
    assert not (path / "extra").exists(), "what the catalog does not know is not kept"
    store = Store(tmp_path)
    assert store.verify(entry) == "ok"
    assert {Path(name).name for name in left_over(tmp_path)} == {"README", "final.mdl", ".sttd.json"}
    (path / "README").write_bytes(b"ho")
    with pytest.raises(ModelError, match="README"):
        store.verify(entry)
    (path / "README").unlink()
    with pytest.raises(ModelError, match="missing"):
        store.verify(entry)
    store.remove(entry)
    assert left_over(tmp_path) == []
    with pytest.raises(ModelMissing):
        store.verify(entry)
    with pytest.raises(ModelMissing):
        store.remove(entry)


def test_what_could_not_be_pinned_says_so(server: Server, tmp_path: Path) -> None:
    server.files["model.zip"] = archive({"top/a": BODY})
    entry = zip_entry(server)
    path = pull(tmp_path, entry)
    assert Store(tmp_path).verify(entry) == "unpinned"
    (path / "a").write_bytes(BODY[1:])
    with pytest.raises(ModelError):
        Store(tmp_path).verify(entry)


def test_a_body_that_ends_early_is_gone_on_with(server: Server, tmp_path: Path) -> None:
    data = archive({"top/a": BODY})
    server.files["model.zip"] = data
    server.cuts = [100_000, 200_000]
    pull(tmp_path, zip_entry(server, {"a": digest(BODY)}))
    assert server.ranges == [None, "bytes=100000-", "bytes=200000-"]


def test_a_download_that_keeps_breaking_is_resumed_by_the_next_pull(server: Server, tmp_path: Path) -> None:
    server.files["model.zip"] = archive({"top/a": BODY})
    server.cuts = [50_000, 60_000, 70_000]
    entry = zip_entry(server, {"a": digest(BODY)})
    with pytest.raises(Unavailable, match="run the command again"):
        pull(tmp_path, entry)
    assert not Store(tmp_path).has(entry)
    pull(tmp_path, entry)
    assert server.ranges[-1] == "bytes=70000-"


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    server.files["model.zip"] = archive({"top/a": bytes(300_000) + os.urandom(300_000)})
    server.cuts = [250_000, 250_001, 250_002]
    with pytest.raises(Unavailable):
        pull(tmp_path, zip_entry(server, {"a": digest(BODY)}))
    server.files["model.zip"] = archive({"top/a": BODY})
    server.tag = '"2"'
    pull(tmp_path, zip_entry(server, {"a": digest(BODY)}))


def test_a_wrong_digest_is_refused_and_nothing_of_it_stays(server: Server, tmp_path: Path) -> None:
    server.files["model.zip"] = archive({"top/a": BODY})
    with pytest.raises(Unavailable, match="SHA-256"):
        pull(tmp_path, zip_entry(server, {"a": digest(b"other")}))
    assert left_over(tmp_path) == []


@pytest.mark.parametrize(
    ("files", "mode"),
    [
        ({"../evil": b"x"}, 0o100644),
        ({"top/../../evil": b"x"}, 0o100644),
        ({"/etc/evil": b"x"}, 0o100644),
        ({"top\\..\\evil": b"x"}, 0o100644),
        ({"top/link": b"/etc/passwd"}, 0o120777),
        ({"top/device": b""}, 0o020666),
        ({}, 0o100644),
    ],
)
def test_an_archive_that_would_write_elsewhere_is_refused(
    server: Server, tmp_path: Path, files: dict[str, bytes], mode: int
) -> None:
    server.files["model.zip"] = archive({"top/a": b"first", **files} if files else {}, mode)
    with pytest.raises(Unavailable, match=r"unsafe name|not a plain file|holds no files"):
        pull(tmp_path / "store", zip_entry(server))
    assert left_over(tmp_path) == []


def test_an_archive_that_is_none_is_refused(server: Server, tmp_path: Path) -> None:
    server.files["model.zip"] = b"<html>not here</html>"
    with pytest.raises(Unavailable, match="not a zip"):
        pull(tmp_path, zip_entry(server))
    assert left_over(tmp_path) == []


def test_a_damaged_archive_is_refused(server: Server, tmp_path: Path) -> None:
    text = b"some words " * 5000
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("top/a", text)
    damaged = bytearray(data.getvalue())
    damaged[60:90] = bytes(30)
    for content in (bytes(damaged), archive({"top/a": b"1", "top/a/b": b"2"})):
        server.files["model.zip"] = content
        with pytest.raises(Unavailable, match="no source gave"):
            pull(tmp_path, zip_entry(server))
        assert left_over(tmp_path) == []


def test_sources_are_tried_in_order(server: Server, tmp_path: Path) -> None:
    server.files["b/one"] = b"1"
    entry = Entry(
        name="test",
        provider="vosk",
        licence="",
        megabytes=1,
        files={"one": digest(b"1")},
        sources=(
            Source(kind="files", url="http://127.0.0.1:9/", names=("one",)),
            Source(kind="files", url=server.url + "a/", names=("one",)),
            Source(kind="files", url=server.url + "b/", names=("one",)),
        ),
    )
    assert (pull(tmp_path, entry) / "one").read_bytes() == b"1"
    with pytest.raises(Unavailable, match="404"):
        pull(tmp_path, replace(entry, name="other", sources=entry.sources[:2]))


def test_two_pulls_at_once_fetch_once(server: Server, tmp_path: Path) -> None:
    server.files["model.zip"] = archive({"top/a": BODY})
    server.slow = 0.02
    entry = zip_entry(server, {"a": digest(BODY)})
    failures: list[BaseException] = []

    def run() -> None:
        try:
            pull(tmp_path, entry)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert server.ranges == [None]
    assert Store(tmp_path).verify(entry) == "ok"


def test_a_full_disk_is_said_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: a small file system cannot be mounted")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", tmp_path], check=False)
    if mounted.returncode:
        pytest.skip("mount is not allowed here: there is no small file system to fill")
    try:
        server.files["model.zip"] = archive({"top/a": BODY})
        with pytest.raises(Unavailable, match="no space"):
            pull(tmp_path, zip_entry(server, {"a": digest(BODY)}))
        with pytest.raises(Unavailable, match="no space"):  # the catalog may promise less than comes
            pull(tmp_path, replace(zip_entry(server, {"a": digest(BODY)}), megabytes=0))
        assert left_over(tmp_path) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_store_that_cannot_be_written_is_said(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match=r"cannot be written: (Not a directory|File exists)"):
        pull(tmp_path / "file", zip_entry(server))


def test_interrupting_a_pull_leaves_no_model_and_the_next_goes_on(server: Server, tmp_path: Path) -> None:
    server.files["model.zip"] = archive({"top/a": BODY})
    server.slow = 0.1
    script = (
        "from tests.unit.test_models import *\n"
        f"source = Source(kind='zip', url='{server.url}model.zip')\n"
        "entry = Entry(name='test', provider='vosk', licence='', megabytes=1, sources=(source,), "
        f"files={{'a': '{digest(BODY)}'}})\n"
        f"print('started', flush=True)\npull(Path({str(tmp_path)!r}), entry)\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.8)
        process.send_signal(2)
        _out, errors = process.communicate()
    assert b"KeyboardInterrupt" in errors
    entry = zip_entry(server, {"a": digest(BODY)})
    assert not Store(tmp_path).has(entry)
    assert not (tmp_path / ".staging" / "test").exists()
    server.slow = 0
    pull(tmp_path, entry)
    assert server.ranges[-1] != "bytes=0-"
    assert str(server.ranges[-1]).startswith("bytes=")


def test_the_catalog_is_complete() -> None:
    entries = catalog()
    assert {"tiny.en", "tiny", "base.en", "base", "small"} <= entries.keys()
    small = {f"vosk-small-{code}" for code in ["en-us", "de", "fr", "es", "ko", "ru", "cn", "ja", "hi", "it", "pt"]}
    assert small <= entries.keys()
    for entry in entries.values():
        assert entry.licence
        assert entry.megabytes > 10
        assert re.fullmatch(r"[\w.-]+", entry.name)
        assert entry.sources
        assert all(source.url.startswith("https://") or source.require for source in entry.sources)
        assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in entry.files.values())
        assert any(source.pinned for source in entry.sources) == bool(entry.files)
    mirrored = {entry.name for entry in entries.values() if any(source.require for source in entry.sources)}
    assert mirrored == {"tiny.en", "base", "vosk-small-ko"}
    assert find("vosk-model-small-ko-0.22") is entries["vosk-small-ko"]


def config(tmp_path: Path, **fields: Any) -> Config:
    return Config(models=ModelsConfig(dir=str(tmp_path)), **fields)


def install(tmp_path: Path, provider: str, name: str) -> None:
    folder = tmp_path / provider / name
    folder.mkdir(parents=True)
    (folder / ".sttd.json").write_text(json.dumps({"pinned": False, "files": {}}))


def test_which_model_a_configuration_means(tmp_path: Path) -> None:
    vosk = partial(config, tmp_path, provider="vosk")
    with pytest.raises(ModelMissing, match="No STT model available"):
        resolve(vosk())
    install(tmp_path, "vosk", "vosk-small-ko")
    assert resolve(vosk()).name == "vosk-small-ko", "the only one that was pulled"
    install(tmp_path, "vosk", "vosk-small-de")
    with pytest.raises(ModelMissing):
        resolve(vosk())
    assert resolve(vosk(model="vosk-small-de")).languages == ("de",)
    install(tmp_path, "vosk", "vosk-small-en-us")
    assert resolve(vosk()).name == "vosk-small-en-us", "the default, if it is there"
    assert resolve(vosk(model=str(tmp_path))).path == tmp_path
    with pytest.raises(ModelMissing):
        resolve(vosk(model="vosk-small-fr"))


def test_a_model_that_means_nothing_is_a_configuration_error(tmp_path: Path) -> None:
    assert wanted(config(tmp_path)) is catalog()["tiny.en"]
    with pytest.raises(ConfigError, match="neither a folder nor in the catalog"):
        wanted(config(tmp_path, model="huge"))
    with pytest.raises(ConfigError, match="a model of vosk"):
        wanted(config(tmp_path, model="vosk-small-ko"))
    assert wanted(config(tmp_path, model=str(tmp_path))) is None


def test_where_models_are_kept() -> None:
    assert default_root({"STATE_DIRECTORY": "/var/lib/sttd:/other"}) == Path("/var/lib/sttd/models")
    assert default_root({"XDG_DATA_HOME": "/data", "HOME": "/h"}) == Path("/data/sttd/models")
    assert default_root({"HOME": "/h"}) == Path("/h/.local/share/sttd/models")
