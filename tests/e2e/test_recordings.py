"""Long recordings in one message."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Self

import pytest
from websockets.sync.client import connect

from sttd.audio.format import RATE, SAMPLE_BYTES
from tests.support import Clip, Daemon, at_16k_mono, normalized, running_daemon

HOUR = 3600 * RATE * SAMPLE_BYTES
AHEAD = 128
"""MiB that sttd may read ahead, by default."""


class PeakMemory:
    """The greatest resident memory of a process while the context lasts, in MiB."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/statm")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.before = self.peak = self._resident()

    def _resident(self) -> float:
        return int(self._status.read_text().split()[1]) * 4096 / 2**20

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.peak = max(self.peak, self._resident())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture(scope="module")
def hour(two_cities: Clip, beckett: Clip) -> tuple[bytearray, list[str]]:
    """An hour in which two recordings come again and again, and a word of each in its order."""
    said = {"wisdom": at_16k_mono(two_cities)[: 9 * 2 * RATE], "failed": at_16k_mono(beckett)}
    order = random.Random(7).choices(sorted(said), k=24)
    pcm = bytearray(HOUR)
    for number, word in enumerate(order):
        at = number * HOUR // len(order)
        pcm[at : at + len(said[word])] = said[word]
    return pcm, order


def heard(texts: list[str]) -> list[str]:
    """The words that tell the recordings apart, in order."""
    return [word for text in texts for word in normalized(text).split() if word in ("wisdom", "failed")]


def warm_up(daemon: Daemon, two_cities: Clip) -> float:
    """What decoding takes for short utterances and the longest is no matter of the recording's length. MiB."""
    with PeakMemory(daemon.process.pid) as memory:
        for gate in (1, 0):
            with daemon.json(gate=gate) as client:
                client.send(at_16k_mono(two_cities)[: 9 * 2 * RATE] * 4)
                client.send('{"type":"eof"}')
                assert list(client)
    return memory.peak


@pytest.mark.reliability
def test_an_hour_in_one_message_is_answered_in_order_and_in_bounded_memory(
    models: Path, hour: tuple[bytearray, list[str]], two_cities: Clip
) -> None:
    pcm, order = hour
    with running_daemon(models) as daemon:
        usual = warm_up(daemon, two_cities)
        with daemon.json(partials=0) as client, PeakMemory(daemon.process.pid) as memory:
            assert json.loads(client.recv()) == {"type": "ready"}
            client.send(pcm)
            client.send('{"type":"eof"}')
            assert heard([json.loads(message)["text"] for message in client]) == order
    assert memory.peak - usual < AHEAD + 20


@pytest.mark.reliability
def test_an_hour_in_one_message_on_the_plain_protocol_is_one_reply(
    models: Path, hour: tuple[bytearray, list[str]], two_cities: Clip
) -> None:
    """And little is read ahead where that is wanted; then a client has to be patient."""
    pcm, order = hour
    with running_daemon(models, "--set", "limits.ahead_bytes=0") as daemon:
        usual = warm_up(daemon, two_cities)
        with (
            connect(daemon.url("/api/v1/ws"), compression=None, ping_interval=None) as client,
            PeakMemory(daemon.process.pid) as memory,
        ):
            client.send(pcm)
            assert heard([str(client.recv(120))]) == order
            with pytest.raises(TimeoutError):
                client.recv(0.5)
    # The decoder's own peak differs by up to 40 MB from run to run, as its calls happen to meet.
    assert memory.peak - usual < 55, "of an hour, which is 110 MB"
