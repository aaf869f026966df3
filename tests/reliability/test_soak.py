"""A9: a crowd of clients that do anything, for as long as STTD_SOAK_S says (60 s; `make reliability`: ten minutes)."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections import Counter
from statistics import linear_regression
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import WebSocketException

from tests.reliability.figures import exchange, figure, resident
from tests.support import Clip, Daemon, at_16k_mono, pieces, running_daemon, wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(40000)]
SOAK_S = float(os.environ.get("STTD_SOAK_S", "60"))
CLOSED_S = 7.0
"""Connections whose client is gone are closed by now (`limits.close_s`)."""
ROUND_S = 30.0
"""After so long everybody leaves, and memory is looked at."""
GROWN_MIB = 48
"""Decodes of several lengths at once leave the heaps as large as they were at their largest."""
KINDS = ("talk", "vanish", "nonsense", "garbage", "half a head", "close early")


class Crowd:
    """Clients that talk, vanish, send garbage or half a head, close early, ask for nonsense."""

    def __init__(self, daemon: Daemon, pcm: bytes) -> None:
        self._daemon = daemon
        self._pcm = pcm
        self._chance = random.Random(7)
        self.counts: Counter[str] = Counter()
        self.lost = 0
        """Clients that only talked, and did not get what they should."""

    def run(self, seconds: float) -> None:
        threads = [threading.Thread(target=self._many, args=(time.monotonic() + seconds,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: self._daemon.status()["sessions"] == 0, 30, "sessions to end")
        time.sleep(1)

    def _many(self, until: float) -> None:
        while time.monotonic() < until:
            kind = self._chance.choice(KINDS)
            self.counts[kind] += 1
            try:
                self._one(kind)
            except (WebSocketException, OSError, EOFError):
                self.lost += kind == "talk"

    def _one(self, kind: str) -> None:
        if kind == "garbage":
            exchange(self._daemon, os.urandom(self._chance.randrange(1, 3000)))
            return
        if kind == "half a head":
            with socket.create_connection(self._daemon.host_port) as client:
                client.sendall(b"GET /ws/stt HT")
            return
        json = self._chance.random() < 0.7
        with self._daemon.json(partials=self._chance.randrange(2)) if json else self._daemon.plain() as session:
            length = len(self._pcm) if kind == "talk" else self._chance.randrange(3200, len(self._pcm))
            for piece in pieces(self._pcm[:length]):
                session.send(piece)
            if kind == "vanish":
                session.socket.shutdown(socket.SHUT_RDWR)
            elif kind == "nonsense":
                session.send('{"type": "config", "words": "perhaps"}')
                session.send(os.urandom(1001))
            elif kind == "talk":
                session.send('{"type": "eof"}')
                self.lost += not any("best of times" in str(message) for message in session)


def test_a09_soak(models: Path, two_cities: Clip) -> None:
    settings = ("--set", "limits.connections=700", "--log-level", "warning")
    with running_daemon(models, *settings) as daemon:
        crowd = Crowd(daemon, at_16k_mono(two_cities)[: 6 * 32000])
        crowd.run(max(20.0, SOAK_S / 4))  # the buffers of the allocator and the model grow at first
        time.sleep(CLOSED_S)
        baseline, threads = (daemon.files(), daemon.tasks()), daemon.threads()
        rounds = max(2, int(SOAK_S / ROUND_S))
        began = time.monotonic()
        times, memory = [0.0], [resident(daemon)]
        for _round in range(rounds):
            crowd.run(SOAK_S / rounds)
            times.append((time.monotonic() - began) / 3600)
            memory.append(resident(daemon))
        wait_until(lambda: daemon.threads() <= threads, 20, "idle threads to end")  # Trio keeps them for ten seconds
        wait_until(lambda: (daemon.files(), daemon.tasks()) == baseline, 10, "files and tasks to be as at first")
        slope, _ = linear_regression(times, memory)
        figure(
            "A9",
            f"{crowd.counts.total()} clients, {SOAK_S:.0f} s ({dict(crowd.counts)}): files, threads and tasks as "
            f"before, lost {crowd.lost}; memory between rounds {min(memory):.0f} to {max(memory):.0f} MiB, at the end "
            f"{memory[-1] - memory[0]:+.1f}, in the second half {memory[-1] - memory[rounds // 2]:+.1f}, "
            f"slope {slope:+.1f} MiB/h",
        )
        assert crowd.lost == 0
        assert memory[-1] - memory[0] < GROWN_MIB
        assert "Traceback" not in daemon.log()
