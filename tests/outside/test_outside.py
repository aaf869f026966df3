"""A protocol and an engine from outside: what docs/architecture.md says is enough."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from websockets.sync.client import connect

from tests.support import ROOT, running_daemon

if TYPE_CHECKING:
    from pathlib import Path

MESSAGE = bytes(6400)


@pytest.mark.parametrize("provider", ["measure", "count"])
def test_a_protocol_and_an_engine_from_outside(provider: str, tmp_path: Path) -> None:
    (tmp_path / "model").write_text("data")
    arguments = ("--provider", provider, "--model", str(tmp_path))
    path = f"{ROOT / 'src'}:{ROOT}"
    with running_daemon(tmp_path, *arguments, program="tests.outside", PYTHONPATH=path) as daemon:
        assert f"every one    ws://{daemon.address}/every-message" in "".join(daemon.lines)
        said = {"measure": "0.6 s", "count": "3 pieces"}[provider]
        with daemon.json(gate=0) as client:
            for _ in range(3):
                client.send(MESSAGE)
            client.send('{"type": "eof"}')
            finals = [event["text"] for event in map(json.loads, client) if event["type"] == "final"]
        assert finals == [said]


@pytest.mark.parametrize("gate", [0, 1])
def test_every_message_has_its_answer(gate: int, tmp_path: Path) -> None:
    """One after the other, as clients of vosk-server send: silent messages too, in order, none merged."""
    (tmp_path / "model").write_text("data")
    arguments = ("--provider", "count", "--model", str(tmp_path))
    path = f"{ROOT / 'src'}:{ROOT}"
    with running_daemon(tmp_path, *arguments, program="tests.outside", PYTHONPATH=path) as daemon:
        url = daemon.url("/every-message", gate=gate)
        with connect(url) as client:
            for number in range(1, 40):
                client.send(MESSAGE)
                answer = client.recv(5)
                assert answer == ("" if gate else f"... {number} pieces")
            client.send(b"")
            assert client.recv(5) == ""
            client.send('{"type": "flush"}')
            client.send(MESSAGE)
            assert client.recv(5) == ("" if gate else "... 1 pieces"), "the flush was no audio"
        with connect(url) as client:
            for _ in range(40):
                client.send(MESSAGE)
            client.send('{"type": "eof"}')
            assert len(list(client)) == 40
