"""A machine that does not keep up refuses new sessions, and loses nothing of those that it has."""

from __future__ import annotations

import json
import sys
import time

import pytest
from websockets.exceptions import InvalidStatus

from tests.support import ROOT, Daemon, running_daemon, wait_until

PLUGINS = f"{ROOT / 'tests' / 'plugins'}:{':'.join(sys.path)}"
SETTINGS = ("--provider", "stuck", "--set", "endpoint.gate=off", "--set", "limits.lag_s=0.5")


def lag(daemon: Daemon) -> float:
    return float(daemon.status()["lag_s"])


def test_new_sessions_are_refused_while_a_live_one_is_behind() -> None:
    with running_daemon("/nonexistent", *SETTINGS, PYTHONPATH=PLUGINS) as daemon, daemon.json(lag=1) as client:
        client.recv()
        client.send(bytes(3200))
        client.send('{"type": "flush"}')
        sent = 0.0
        while lag(daemon) <= 0.5:
            assert sent < 2, "audio that waits for the recognizer is lag"
            client.send(bytes(6400))
            sent += 0.2
            time.sleep(0.2)
        with pytest.raises(InvalidStatus) as refused:
            daemon.json()
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["Retry-After"] == "5"
        assert daemon.get("/livez")[0] == 200
        assert daemon.get("/readyz")[0] == 200
        first = json.loads(client.recv(10))
        assert first["text"] == "at last"
        assert first["lag"] >= 0.5
        wait_until(lambda: lag(daemon) == 0, 5, "the daemon to catch up")
        with daemon.json() as another:
            assert json.loads(another.recv()) == {"type": "ready"}
        client.send('{"type": "eof"}')
        assert [json.loads(message)["text"] for message in client] == ["at last"], "what waited was not lost"


def test_a_recording_sent_at_once_is_no_sign_of_overload() -> None:
    with running_daemon("/nonexistent", *SETTINGS, PYTHONPATH=PLUGINS) as daemon, daemon.json() as client:
        client.recv()
        client.send(bytes(20 * 32000))
        client.send('{"type": "flush"}')
        client.send(bytes(5 * 32000))
        client.send('{"type": "flush"}')
        client.recv(10)
        assert lag(daemon) == 0
        with daemon.json() as another:
            assert json.loads(another.recv()) == {"type": "ready"}
