"""Gaps in arrival: which stalls of a network an utterance survives, and what that costs a client that just stops."""

from __future__ import annotations

import json
import time
from statistics import median

import pytest
from websockets.sync.client import ClientConnection

from tests.reliability.figures import figure
from tests.support import Clip, Daemon, at_16k_mono, pieces

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(600)]
STALLS_S = (0.8, 1.3, 2.0, 3.0)
SPEAKING_S = (1.0, 1.6, 2.3)
"""Where two_cities.wav, from its first word on, is stalled: in the middle of a word."""


def send_paced(client: ClientConnection, pcm: bytes) -> None:
    for piece in pieces(pcm):
        client.send(piece)
        time.sleep(0.1)


def test_stalls_and_clients_that_stop(whisper: Daemon, two_cities: Clip) -> None:
    pcm = at_16k_mono(two_cities)[12 * 3200 : 46 * 3200]
    survived = dict.fromkeys(STALLS_S, 0)
    for stall_s in STALLS_S:
        for at_s in SPEAKING_S:
            with whisper.json(partials=0) as client:
                client.recv()
                cut = int(at_s * 10) * 3200
                send_paced(client, pcm[:cut])
                time.sleep(stall_s)
                client.send(pcm[cut:])
                client.send('{"type": "eof"}')
                survived[stall_s] += sum(json.loads(message)["type"] == "final" for message in client) == 1
    waits = {}
    for ending, trailing_ms, send in (
        ("in mid-word", 0, send_paced),
        ("after 0.2 s of silence", 200, send_paced),
        ("in mid-word, all in one message", 0, ClientConnection.send),
    ):
        took = []
        for at_s in SPEAKING_S:
            with whisper.json(partials=0) as client:
                client.recv()
                send(client, pcm[: int(at_s * 10) * 3200] + bytes(32 * trailing_ms))
                stopped = time.monotonic()
                assert json.loads(client.recv(10))["type"] == "final"
                took.append(time.monotonic() - stopped)
        waits[ending] = median(took)
    figure(
        "stalls",
        "utterances in one piece after a stall in mid-word of "
        + ", ".join(f"{stall_s:g} s: {number} of {len(SPEAKING_S)}" for stall_s, number in survived.items())
        + "; text of a client that stops without a flush or eof, "
        + ", ".join(f"{ending}: after {wait:.2f} s" for ending, wait in waits.items()),
    )
    assert survived[0.8] == survived[1.3] == survived[2.0] == len(SPEAKING_S)
    assert waits["after 0.2 s of silence"] < 2
