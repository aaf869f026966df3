"""`sttd doctor`: each line on a machine that is well, and what it says of one that is not."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from tests.support import Daemon, environment, running_daemon

if TYPE_CHECKING:
    from pathlib import Path

FREE = ("--listen", "127.0.0.1:0")


def doctor(models: Path | str, *arguments: str, **extra: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the findings: the last of each kind, and the worst of all ports."""
    command = [sys.executable, "-m", "sttd", "doctor", "--json", *arguments]
    done = subprocess.run(
        command, env=environment(models, **extra), capture_output=True, text=True, check=False, timeout=100
    )
    assert done.stdout, done.stderr
    return done.returncode, {finding["what"]: finding for finding in json.loads(done.stdout)}


@pytest.mark.parametrize("provider", ["faster_whisper", "vosk"])
def test_a_machine_that_is_well(models: Path, provider: str) -> None:
    code, found = doctor(models, "--provider", provider, *FREE)
    assert code == 0
    assert list(found) == [
        "python", "processor", "settings", "memory", "disk", "model", "port", "service", "microphone", "decoding",
    ]  # fmt: skip
    assert found["model"]["state"] == found["decoding"]["state"] == "ok"
    assert "as fast as speech" in found["decoding"]["text"]


def test_lines_for_people(models: Path) -> None:
    command = [sys.executable, "-m", "sttd", "doctor", *FREE, "--set", "nonsense=1"]
    done = subprocess.run(command, env=environment(models), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[-2].startswith("wrong    settings")
    assert "nonsense" in lines[-2]
    assert lines[-1].strip().startswith("-> ")


def test_no_model_and_a_damaged_one(models: Path, tmp_path: Path) -> None:
    code, found = doctor(tmp_path / "empty", *FREE)
    assert code == 1
    assert (found["model"]["state"], found["model"]["todo"]) == ("wrong", "sttd models pull")
    assert "decoding" not in found
    damaged = tmp_path / "damaged/faster_whisper/tiny.en"
    shutil.copytree(models / "faster_whisper/tiny.en", damaged)
    (damaged / "config.json").write_text("{}")
    code, found = doctor(tmp_path / "damaged", *FREE)
    assert code == 1
    assert "config.json" in found["model"]["text"]


def test_ports(whisper: Daemon, models: Path) -> None:
    code, found = doctor(models, "--listen", whisper.address)
    assert code == 0
    assert found["port"]["text"].endswith("sttd runs there")
    with running_daemon(models, "--set", "wyoming.listen=127.0.0.1:0") as daemon:
        address = re.search(r"Wyoming\s+tcp://(\S+)", "".join(daemon.lines))
        assert address
        code, found = doctor(models, *FREE, "--set", f"wyoming.listen={address[1]}")
    assert code == 0
    assert found["port"]["text"] == f"{address[1]}: sttd runs there"
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, found = doctor(models, "--listen", f"127.0.0.1:{other.getsockname()[1]}")
    assert code == 1
    assert found["port"]["text"].endswith("Address already in use")
    assert found["port"]["todo"]


def test_ports_of_every_kind_and_family(models: Path, tmp_path: Path) -> None:
    authority, pem = trustme.CA(), tmp_path / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(pem))
    tls = ("--set", f"server.tls_cert={pem}", "--set")
    with running_daemon(models, *tls, "server.tls_listen=127.0.0.1:0", "--listen", "[::1]:0") as daemon:
        said = "".join(daemon.lines)
        secure, six = re.search(r"wss://([\d.]+:\d+)/", said), re.search(r"ws://(\[::1\]:\d+)/", said)
        assert secure
        assert six
        for arguments in ((*FREE, *tls, f"server.tls_listen={secure[1]}"), ("--listen", six[1])):
            code, found = doctor(models, *arguments)
            assert code == 0
            assert found["port"]["text"].endswith("sttd runs there")
            assert found["port"]["text"].startswith(arguments[-1].partition("=")[2] or arguments[-1])


def test_a_library_that_crashes_on_this_processor(models: Path, tmp_path: Path) -> None:
    (tmp_path / "ctranslate2.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    state = tmp_path / "state"
    code, found = doctor(models, *FREE, PYTHONPATH=str(tmp_path), XDG_STATE_HOME=str(state))
    assert code == 1
    assert found["decoding"]["state"] == "wrong"
    assert "SIGILL" in found["decoding"]["text"]
