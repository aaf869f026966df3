"""The service manager, the log, the listening addresses, the unit."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from sttd.config.config import Config, ServerConfig
from sttd.errors import ConfigError, Unavailable
from sttd.ops import logs
from sttd.ops.logs import JournalFormatter, JsonFormatter, to_journal
from sttd.ops.notify import notify
from sttd.ops.sockets import Address, Kind, open_listeners, read_address
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = f"@sttd-test-{os.getpid()}" if abstract else str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_a_log_that_nobody_reads_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr(logs, "STANDARD_ERROR", writer)
    handler = logs.Writer(max_waiting=10)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for _number in range(100):
        handler.emit(logging.makeLogRecord({"msg": "x" * 65_536}))
    with os.fdopen(reader) as log:
        lines: list[str] = []
        while "dropped" not in "".join(lines[-1:]):
            lines.append(log.readline())
    lost = int(lines[-1].split()[0])
    assert 85 <= lost <= 98
    os.close(writer)


class TwoAddresses(trio.abc.HostnameResolver):
    """Knows a name at an address that this machine has, and at one that it has not."""

    async def getaddrinfo(self, host: Any, port: Any, *hints: int) -> Any:
        stream = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [
            (socket.AF_INET6, *stream, ("2001:db8::1", port, 0, 0)),
            (socket.AF_INET, *stream, ("127.0.0.1", port)),
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


async def test_a_name_is_listened_at_where_this_machine_has_it() -> None:
    trio.socket.set_custom_hostname_resolver(TwoAddresses())
    (listener,) = await open_listeners(Config(server=ServerConfig(listen=("localhost:0",))))
    assert listener.host == "127.0.0.1"
    listener.socket.socket.close()
    with pytest.raises(Unavailable, match=r"2001:db8::1.*Cannot assign requested address"):
        await open_listeners(Config(server=ServerConfig(listen=("[2001:db8::1]:0",))))


def test_without_a_service_manager_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")


def test_a_service_manager_that_is_gone_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("READY=1")


def test_each_line_in_the_journal_has_its_priority() -> None:
    record = logging.LogRecord("sttd", logging.ERROR, "", 0, "one\ntwo", (), None)
    assert JournalFormatter("%(message)s").format(record) == "<3>one\n<3>two"


def test_the_journal_is_recognized_by_its_stream(tmp_path: Path) -> None:
    script = "from sttd.ops.logs import to_journal; print(to_journal())"
    with (tmp_path / "stream").open("w") as stream:
        status = os.fstat(stream.fileno())
        for value, expected in ((f"{status.st_dev}:{status.st_ino}", "True"), ("1:2", "False"), ("", "False")):
            done = subprocess.run(
                [sys.executable, "-c", script],
                env={**os.environ, "JOURNAL_STREAM": value},
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                check=True,
            )
            assert done.stdout.strip() == expected
    assert isinstance(to_journal(), bool)


@pytest.mark.parametrize("address", ["8000", ":8000", "host", "host:", "host:x", "host:99999", "host:-1", ""])
def test_an_address_that_is_none_is_a_configuration_error(address: str) -> None:
    with pytest.raises(ConfigError, match="host:port"):
        read_address(address, Kind.PLAIN)


def test_addresses() -> None:
    kind = Kind.PLAIN
    assert read_address("127.0.0.1:8000", kind) == Address(kind, "127.0.0.1", 8000)
    assert read_address("tcp://127.0.0.1:8000", kind) == Address(kind, "127.0.0.1", 8000)
    assert read_address("[::1]:0", kind) == Address(kind, "::1", 0)
    assert read_address("unix:/run/a", kind) == read_address("unix:///run/a", kind) == Address(kind, path="/run/a")


async def test_listening_is_all_or_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=f"127.0.0.1:{port}: another program listens there"):
            await open_listeners(Config(server=ServerConfig(listen=("127.0.0.1:0", f"127.0.0.1:{port}"))))


def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    async def main() -> None:
        with pytest.raises(Unavailable, match=r"cannot listen on 203\.0\.113\.1:80"):
            await open_listeners(Config(server=ServerConfig(listen=("203.0.113.1:80",))))

    import trio

    trio.run(main)


def test_fields_of_the_log_cannot_be_forged() -> None:
    record = logging.LogRecord(
        "sttd",
        logging.INFO,
        "",
        0,
        "disconnected peer=%s reason=%r 100%% code=%d: %s",
        ("1.2.3.4:5", "it's peer=9.9.9.9", 1000, "x peer=6.6.6.6 code=1"),
        None,
    )
    found = json.loads(JsonFormatter("%(message)s").format(record))
    assert (found["peer"], found["code"], found["level"]) == ("1.2.3.4:5", "1000", "info")
    assert found["reason"] == "it's peer=9.9.9.9"


def test_the_unit_is_sound() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing")
    unit = str(ROOT / "systemd/sttd.service")
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stderr
    exposure = ["systemd-analyze", "security", "--offline=true", "--threshold=15", unit]
    assert subprocess.run(exposure, capture_output=True, check=False).returncode == 0
