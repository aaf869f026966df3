"""A machine that goes without a word, in a network of its own (network_namespaces(7))."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import environment, running_daemon, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HERE, THERE = "10.231.87.1", "10.231.87.2"
CLIENT = """
import sys
from websockets.sync.client import connect
with connect(sys.argv[1], ping_interval=None) as client:
    print(client.recv(), flush=True)
    sys.stdin.read()
"""


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The name of a network namespace that a cable joins to this one."""
    if os.getuid() or shutil.which("ip") is None:
        pytest.skip("not root, or no program ip: there is no network to be cut")
    name = f"sttd-{os.getpid()}"
    cable = f"st{os.getpid()}"
    try:
        run("ip", "netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network can be made here: {error.stderr.decode().strip()}")
    try:
        run("ip", "link", "add", cable, "type", "veth", "peer", "name", "far", "netns", name)
        run("ip", "address", "add", f"{HERE}/30", "dev", cable)
        run("ip", "link", "set", cable, "up")
        run("ip", "-n", name, "address", "add", f"{THERE}/30", "dev", "far")
        run("ip", "-n", name, "link", "set", "far", "up")
        yield name
        run(
            "ip", "link", "delete", cable
        )  # a dead client's socket would keep the network, and so the cable, for minutes
    finally:
        run("ip", "netns", "delete", name)


def test_a_machine_that_is_gone_ends_its_session(models: Path, elsewhere: str) -> None:
    settings = ("access.allow_unauthenticated=true", "limits.ping_s=1")
    words = [word for setting in settings for word in ("--set", setting)]
    with running_daemon(models, "--listen", f"{HERE}:0", *words) as daemon:
        url = next(word for line in daemon.lines for word in line.split() if word.startswith(f"ws://{HERE}"))
        client = subprocess.Popen(
            ["ip", "netns", "exec", elsewhere, sys.executable, "-c", CLIENT, url.replace("/api/v1/ws", "/ws/stt")],
            env=environment(models),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert client.stdout is not None
            assert b"ready" in client.stdout.readline()
            assert daemon.status()["sessions"] == 1
            run("ip", "-n", elsewhere, "link", "set", "far", "down")
            wait_until(lambda: daemon.status()["sessions"] == 0, 20, "the session to end")
            assert 'sttd_limits_hit_total{limit="ping_s"} 1.0' in daemon.get("/metrics", "localhost")[1]
        finally:
            client.kill()
            client.communicate()
