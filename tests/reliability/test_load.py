"""A8 with streams, and A17: how late the event loop is with sixteen of them, how long a start takes."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.reliability.figures import figure
from tests.support import ROOT, Daemon, running_daemon

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(300)]
PLUGINS = str(ROOT / "tests/plugins")
STREAMS, STREAM_S = 16, 20.0
PIECE_S = 0.02


def talk(daemon: Daemon) -> None:
    """As it is spoken, in messages of 20 ms."""
    with daemon.json() as client:
        began = time.monotonic()
        for number in range(int(STREAM_S / PIECE_S)):
            client.send(bytes(640))
            time.sleep(max(0.0, began + (number + 1) * PIECE_S - time.monotonic()))
        client.send('{"type": "eof"}')
        assert [message for message in client if "error" in str(message)] == []


def late(daemon: Daemon, bound: str) -> tuple[int, int]:
    """How often the event loop was measured, and how often it was later than `bound` seconds."""
    text = daemon.get("/metrics", "localhost")[1]
    counts = dict(re.findall(r'^sttd_event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', text, re.MULTILINE))
    return int(float(counts["+Inf"])), int(float(counts["+Inf"]) - float(counts[bound]))


def test_a08_sixteen_streams() -> None:
    with running_daemon("/nonexistent", "--provider", "moody", PYTHONPATH=PLUGINS) as daemon:
        looks, before = late(daemon, "0.02")
        threads = [threading.Thread(target=talk, args=(daemon,)) for _ in range(STREAMS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        more, after = late(daemon, "0.02")
    figure(
        "A8",
        f"{STREAMS} streams in messages of 20 ms: the event loop was late by over 20 ms {after - before} times "
        f"in {more - looks}",
    )
    assert more - looks > STREAM_S
    assert after - before <= 1, "the machine has other things to do too"


@pytest.mark.parametrize(
    ("provider", "model", "goal_s"), [("moody", "", 1), ("vosk", "vosk-small-ko", 10), ("faster_whisper", "tiny.en", 5)]
)
def test_a17_a_start(models: Path, tmp_path: Path, provider: str, model: str, goal_s: float) -> None:
    """The quickest of three. The goal for vosk, 5 s, is one for a Raspberry Pi 4, which nobody has tried."""
    times: list[float] = []
    for _round in range(3):
        path = tmp_path / f"notify{len(times)}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(path))
            manager.settimeout(60)
            began = time.monotonic()
            arguments = ["--provider", provider, *(["--model", model] if model else [])]
            path_list = f"{PLUGINS}:{os.environ.get('PYTHONPATH', '')}"
            with running_daemon(
                models, *arguments, ready=False, NOTIFY_SOCKET=str(path), PYTHONPATH=path_list
            ) as daemon:
                while b"READY=1" not in manager.recv(4096):
                    pass
                times.append(time.monotonic() - began)
                assert daemon.get("/readyz")[0] == 200
    figure("A17", f"{provider} {model}: READY after {', '.join(f'{took:.2f}' for took in times)} s")
    assert min(times) < goal_s
