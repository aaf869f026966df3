"""Providers of other packages that find text on their own time."""

from __future__ import annotations

import sys
import time
import wave
from importlib.resources import files

from tests.support import ROOT, running_daemon

PLUGINS = f"{ROOT / 'tests' / 'plugins'}:{':'.join(sys.path)}"


def test_text_that_comes_late_is_the_reply_to_the_next_message() -> None:
    with wave.open(str(files("sttd").joinpath("sample.wav"))) as sample:
        speech = sample.readframes(sample.getnframes())
    with running_daemon("/nonexistent", "--provider", "late", PYTHONPATH=PLUGINS) as daemon, daemon.plain() as client:
        client.send(speech)
        client.send('{"type": "flush"}')
        time.sleep(1)
        client.send(bytes(3200))
        assert client.recv(5) == "late"
