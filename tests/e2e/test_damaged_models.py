"""Models as a power cut leaves them: the daemon runs, and says which file is damaged."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from tests.support import CACHE, Daemon, running_daemon, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VOSK, WHISPER = "vosk/vosk-small-ko", "faster_whisper/tiny.en"


@pytest.fixture
def store(models: Path) -> Iterator[Path]:
    """Models that may be damaged, as they were pulled; links, on their file system."""
    with TemporaryDirectory(dir=CACHE) as folder:
        for name in (VOSK, WHISPER):
            shutil.copytree(models / name, Path(folder) / name, copy_function=os.link)
        yield Path(folder)


def written(path: Path, content: bytes) -> None:
    path.unlink()  # a link to the tests' own model
    path.write_bytes(content)


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    written(path, b"")


def zero(path: Path) -> None:
    written(path, bytes(path.stat().st_size))


def reason(daemon: Daemon) -> str:
    wait_until(lambda: "is loading" not in daemon.status()["reason"], 60, "the load to end")
    assert daemon.get("/livez")[0] == 200
    return str(daemon.status()["reason"])


@pytest.mark.parametrize("damage", [remove, empty, zero])
@pytest.mark.parametrize(
    ("provider", "model", "file"),
    [
        ("vosk", VOSK, "graph/disambig_tid.int"),
        ("vosk", VOSK, "ivector/splice.conf"),
        ("vosk", VOSK, "conf/model.conf"),
        ("vosk", VOSK, "am/final.mdl"),
        ("faster_whisper", WHISPER, "model.bin"),
        ("faster_whisper", WHISPER, "tokenizer.json"),
    ],
)
def test_the_damaged_file_is_named(
    store: Path, tmp_path: Path, provider: str, model: str, file: str, damage: Callable[[Path], None]
) -> None:
    damage(store / model / file)
    with running_daemon(store, "--provider", provider, ready=False, XDG_STATE_HOME=str(tmp_path)) as daemon:
        said = reason(daemon)
        assert file in said
        assert f"sttd models pull {model.split('/')[1]}" in said


@pytest.mark.parametrize("file", ["graph/disambig_tid.int", "ivector/splice.conf", "am/final.mdl"])
def test_a_model_of_ones_own_is_tried_in_a_process_of_its_own(store: Path, tmp_path: Path, file: str) -> None:
    (store / VOSK / ".sttd.json").unlink()
    empty(store / VOSK / file)
    with running_daemon(
        store, "--provider", "vosk", "--model", str(store / VOSK), ready=False, XDG_STATE_HOME=str(tmp_path)
    ) as daemon:
        assert f"{file} is empty" in reason(daemon)


def test_what_was_damaged_unseen_is_found_once_it_has_ended_the_process(store: Path, tmp_path: Path) -> None:
    """The file keeps its size and its time of change, so the first start trusts it; systemd starts the next."""
    file = store / VOSK / "graph/disambig_tid.int"
    start = partial(running_daemon, store, "--provider", "vosk", XDG_STATE_HOME=str(tmp_path))
    with start():
        pass
    (record,) = (tmp_path / "sttd/loads").iterdir()
    assert json.loads(record.read_text())["state"] == "loaded"
    before = file.stat()
    written(file, b"\n" * before.st_size)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with start(ready=False) as daemon:
        wait_until(lambda: daemon.process.poll() is not None, 30, "vosk to end the process")
    with start(ready=False) as daemon:
        assert "graph/disambig_tid.int" in reason(daemon)


def test_a_load_that_failed_is_not_tried_at_every_connection_but_when_the_model_was_mended(
    store: Path, models: Path, tmp_path: Path
) -> None:
    damaged = store / WHISPER / "model.bin"
    empty(damaged)
    with running_daemon(store, ready=False, XDG_STATE_HOME=str(tmp_path)) as daemon:
        assert "model.bin" in reason(daemon)
        for _client in range(5):
            with daemon.json() as client:
                assert "model.bin" in str(client.recv(20))
        assert daemon.log().count("tried again in 5 s") == 1
        damaged.unlink()
        shutil.copy(models / WHISPER / "model.bin", damaged)
        daemon.wait_ready(30)
        with daemon.json() as client:
            assert "ready" in str(client.recv(20))
