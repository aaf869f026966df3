"""Sessions of the real process: how they begin, end, fail and keep apart."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import socket
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support import (
    ROOT,
    Clip,
    Daemon,
    RawClient,
    at_16k_mono,
    finals,
    json_events,
    link_or_copy,
    pieces,
    running_daemon,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLUGINS = str(ROOT / "tests" / "plugins")
CLOSE, TEXT, BINARY = 8, 1, 2


@pytest.mark.parametrize("provider", ["vosk", "whisper"])
def test_close_frame_in_mid_utterance_brings_the_last_final_and_only_then_the_close(
    provider: str, request: pytest.FixtureRequest, korean: list[Clip], two_cities: Clip
) -> None:
    daemon: Daemon = request.getfixturevalue(provider)
    pcm = at_16k_mono(korean[0] if provider == "vosk" else two_cities)[: 3 * 32000]
    client = RawClient(daemon, "/ws/stt?partials=0")
    assert client.receive_text() == {"type": "ready"}
    for piece in pieces(pcm):
        client.send(BINARY, piece)
    client.send(CLOSE, struct.pack("!H", 1000) + b"done")
    final = client.receive_text()
    assert final["type"] == "final"
    assert final["text"]
    assert client.receive() == (CLOSE, struct.pack("!H", 1000) + b"done")
    assert client.receive() is None
    wait_until(lambda: "code=1000 reason='done'" in daemon.log(), 5, "the disconnection to be logged")


def test_close_frame_on_the_plain_protocol_brings_the_last_text(whisper: Daemon, two_cities: Clip) -> None:
    client = RawClient(whisper, "/api/v1/ws")
    for piece in pieces(at_16k_mono(two_cities)[: 3 * 32000]):
        client.send(BINARY, piece)
    client.send(CLOSE, struct.pack("!H", 1000))
    received = client.receive()
    assert received is not None
    assert received[0] == TEXT
    assert b"best of times" in received[1]
    assert client.receive() == (CLOSE, struct.pack("!H", 1000))


def test_eof_brings_the_last_final_and_a_close_from_the_daemon(vosk: Daemon, korean: list[Clip]) -> None:
    with vosk.json(partials=0) as client:
        for piece in pieces(at_16k_mono(korean[0])):
            client.send(piece)
        client.send('{"type":"eof"}')
        events = [json.loads(message) for message in client]
        assert [event["type"] for event in events] == ["ready", "final"]
        assert client.close_code == 1000


def test_audio_sent_before_ready_is_not_lost(models: Path, korean: list[Clip]) -> None:
    with running_daemon(models, "--provider", "vosk", ready=False) as daemon, daemon.json() as client:
        assert finals(json_events(client, at_16k_mono(korean[0])))


@pytest.mark.parametrize("path", ["/ws/stt", "/api/v1/ws"])
@pytest.mark.parametrize(
    "message", ["hello", "{", "[]", "null", '{"type":"nonsense"}', '{"type":"config","x":1}', "[" * 5000, "é" * 20000]
)
def test_text_that_means_nothing_harms_nothing(vosk: Daemon, korean: list[Clip], path: str, message: str) -> None:
    client = RawClient(vosk, f"{path}?partials=0")
    for _twice in range(2):
        client.send(TEXT, message.encode())
    for piece in pieces(at_16k_mono(korean[0])):
        client.send(BINARY, piece)
    client.send(TEXT, b'{"type":"eof"}')
    received = []
    while (got := client.receive()) is not None and got[0] == TEXT:
        received.append(got[1].decode())
    if path == "/ws/stt":
        kinds = [json.loads(text)["type"] for text in received]
        assert kinds == ["ready", "error", "error", "final"]
    else:
        assert len(received) == 1, "the plain protocol answers with nothing but text"


def test_config_message_changes_the_format(vosk: Daemon, korean: list[Clip]) -> None:
    import numpy as np

    clip = korean[0]
    samples = (clip.samples[:, 0] / 32768).astype(np.float32)
    stereo = np.stack([samples, samples], axis=1).tobytes()
    with vosk.json(partials=0) as client:
        options = {"sample_rate": clip.rate, "encoding": "pcm_f32le", "channels": 2, "words": True}
        client.send(json.dumps({"type": "config", **options}))
        for start in range(0, len(stereo), 7777):  # cuts samples apart
            client.send(stereo[start : start + 7777])
        client.send('{"type":"eof"}')
        final = [json.loads(message) for message in client][-1]
    with vosk.json(partials=0, sample_rate=clip.rate, channels=clip.samples.shape[1], words=1) as client:
        expected = json_events(client, clip.pcm)[-1]
    assert final["text"] == expected["text"]
    assert len(final["words"]) == len(final["text"].split())


def test_a_query_that_cannot_be_used_is_answered_with_what_is_allowed(vosk: Daemon) -> None:
    for query, part in (
        ({"sample_rate": 1}, "48000"),
        ({"rate": 16000}, "sample_rate"),
        ({"encoding": "mp3"}, "pcm_f32le"),
        ({"channels": 9}, "from 1 to 8"),
        ({"min_silence_ms": "soon"}, "whole number"),
    ):
        with vosk.json(**query) as client:
            event = json.loads(client.recv())
            assert event["type"] == "error"
            assert part in event["message"]
            with pytest.raises(ConnectionClosed):
                client.recv()
            assert client.close_code == 1008
    with vosk.plain(sample_rate=1) as client:
        with pytest.raises(ConnectionClosed):
            client.recv()
        assert client.close_code == 1008
        assert "sample_rate" in str(client.close_reason)


def test_garbage_audio_gives_text_or_nothing_and_never_a_fault(vosk: Daemon, whisper: Daemon) -> None:
    chance = random.Random(7)
    for daemon in (vosk, whisper):
        for encoding in ("pcm_s16le", "pcm_f32le", "pcm_mulaw"):
            with daemon.json(encoding=encoding) as client:
                for _number in range(40):
                    client.send(chance.randbytes(chance.choice((0, 1, 2, 333, 3200))))
                client.send('{"type":"eof"}')
                events = [json.loads(message) for message in client]
            assert {event["type"] for event in events} <= {"ready", "partial", "final"}
            assert client.close_code == 1000


def test_no_model_daemon_runs_and_clients_are_told(tmp_path: Path, models: Path) -> None:
    with running_daemon(tmp_path, "--provider", "vosk", "--model", "vosk-small-ko", ready=False) as daemon:
        assert "models pull vosk-small-ko" in "".join(daemon.lines)
        with daemon.json() as client:
            assert json.loads(client.recv()) == {"type": "error", "message": "No STT model available"}
            client.send(bytes(3200))
            client.send('{"type":"eof"}')
            assert list(client) == []
            assert client.close_code == 1000
        with daemon.plain() as client:
            with pytest.raises(ConnectionClosed):
                client.recv()
            assert client.close_code == 1013
            assert client.close_reason == "No STT model available"
        status, body = daemon.get("/readyz")
        assert status == 503
        assert json.loads(body)["reason"] == "No STT model available"
        assert daemon.get("/livez") == (200, "ok\n")
        # The model arrives while the daemon runs.
        shutil.copytree(models / "vosk/vosk-small-ko", tmp_path / "vosk/vosk-small-ko", copy_function=link_or_copy)
        with daemon.json() as client:
            assert json.loads(client.recv(60)) == {"type": "ready"}
        assert daemon.get("/readyz")[0] == 200


@pytest.mark.parametrize("provider", ["vosk", "faster_whisper"])
def test_a_model_that_does_not_load_is_an_error_with_details_and_a_close(tmp_path: Path, provider: str) -> None:
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).write_text("not a model")
    with running_daemon(tmp_path, "--provider", provider, "--model", str(tmp_path), ready=False) as daemon:
        with daemon.json() as client:
            event = json.loads(client.recv(30))
            assert event["type"] == "error"
            assert "does not load" in event["message"]
            with pytest.raises(ConnectionClosed):
                client.recv()
            assert client.close_code == 1011
        assert daemon.get("/readyz")[0] == 503


def test_eight_sessions_of_both_protocols_get_only_their_own_text(vosk: Daemon, korean: list[Clip]) -> None:
    recordings = [at_16k_mono(clip) for clip in korean[:8]]

    def alone(pcm: bytes) -> str:
        with vosk.json() as client:
            return " ".join(finals(json_events(client, pcm)))

    def one_of_many(number: int) -> str:
        pcm = recordings[number]
        if number % 2:
            with vosk.json() as client:
                return " ".join(finals(json_events(client, pcm, 40)))
        texts: list[str] = []
        with vosk.plain() as client:
            receiver = threading.Thread(target=lambda: texts.extend(str(message) for message in client))
            receiver.start()
            for piece in pieces(pcm):
                client.send(piece)
            client.send('{"type":"eof"}')
            receiver.join()
        return " ".join(texts)

    expected = [alone(pcm) for pcm in recordings]
    assert len(set(expected)) == 8
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one_of_many, range(8))) == expected


@pytest.mark.timeout(300)
@pytest.mark.parametrize("provider", ["vosk", "whisper"])
def test_a_hundred_clients_killed_in_mid_utterance_leave_nothing_behind(
    provider: str, request: pytest.FixtureRequest, korean: list[Clip]
) -> None:
    daemon: Daemon = request.getfixturevalue(provider)
    pcm = at_16k_mono(korean[0])[: 2 * 32000]
    chance = random.Random(3)

    def kill_one(number: int) -> None:
        client = RawClient(daemon, ("/ws/stt", "/api/v1/ws")[number % 2])
        if number % 4 == 0:
            assert client.receive_text() == {"type": "ready"}
        for piece in pieces(pcm)[: chance.randrange(20)]:
            client.send(BINARY, piece)
        if number % 3:
            linger = struct.pack("ii", 1, 0)  # closing resets the connection, as a crash of the machine would
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.socket.close()

    wait_until(lambda: daemon.status()["sessions"] == 0, 30, "earlier sessions to end")
    files = daemon.files()
    for number in range(100):
        kill_one(number)
    wait_until(lambda: daemon.status()["sessions"] == 0, 90, "the sessions to end")
    assert daemon.status()["recognizers"] == 0
    wait_until(lambda: daemon.files() <= files, 20, "the sockets to be closed")
    # Trio keeps idle worker threads for some seconds.
    settled = 30 if provider == "vosk" else 40
    wait_until(lambda: daemon.threads() < settled, 30, f"threads to go (now {daemon.threads()})")
    with daemon.json() as client:
        assert json.loads(client.recv()) == {"type": "ready"}


def test_sigterm_lets_every_session_say_what_it_has(models: Path, korean: list[Clip]) -> None:
    with running_daemon(models, "--provider", "vosk") as daemon, ExitStack() as stack:
        opened = [daemon.json(partials=0), daemon.json(partials=0), daemon.plain()]
        clients = [stack.enter_context(client) for client in opened]
        for client in clients:
            for piece in pieces(at_16k_mono(korean[0])):
                client.send(piece)
        assert json.loads(clients[0].recv()) == {"type": "ready"}
        assert json.loads(clients[1].recv()) == {"type": "ready"}
        wait_until(lambda: daemon.status()["recognizers"] == 3, 10, "the recognizers")
        time.sleep(0.5)
        daemon.process.send_signal(signal.SIGTERM)
        for client in clients:
            assert client.recv(20)
            with pytest.raises(ConnectionClosed):
                client.recv(20)
            assert client.close_code == 1001
        assert daemon.process.wait(10) == 0


def test_an_idle_daemon_ends_at_once_and_a_second_signal_ends_a_busy_one(models: Path, two_cities: Clip) -> None:
    with running_daemon(models) as daemon:
        daemon.process.send_signal(signal.SIGINT)
        assert daemon.process.wait(5) == 0
    with running_daemon(models) as daemon, daemon.plain() as client:
        client.send(at_16k_mono(two_cities))
        time.sleep(1)
        daemon.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert daemon.process.poll() is None
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(5) == 0


def test_drain_is_bounded(models: Path, two_cities: Clip) -> None:
    with running_daemon(models, "--set", "server.drain_s=0.5") as daemon, daemon.plain() as client:
        client.send(at_16k_mono(two_cities) * 3)
        time.sleep(0.5)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(8) == 0
        assert "cut off" in daemon.log() or "recognition took too long" in daemon.log()


@pytest.fixture(scope="module")
def plugin() -> Any:
    """A daemon with another package's provider, which does what the audio's length tells it to."""
    path = f"{PLUGINS}:{':'.join(sys.path)}"
    with running_daemon("/nonexistent", "--provider", "moody", "--set", "endpoint.gate=off", PYTHONPATH=path) as daemon:
        yield daemon


def test_a_provider_of_another_package_is_served_on_both_protocols(plugin: Daemon) -> None:
    with plugin.json() as client:
        assert json.loads(client.recv()) == {"type": "ready"}
        client.send(bytes(32000))
        client.send('{"type":"flush"}')
        assert json.loads(client.recv()) == {"type": "final", "text": "1.0 seconds"}
    with plugin.plain() as client:
        client.send(bytes(48000))
        assert client.recv() == "1.5 seconds"


def test_a_recognizer_that_raises_ends_its_session_alone(plugin: Daemon) -> None:
    with plugin.json() as other, plugin.json() as client:
        assert json.loads(other.recv()) == {"type": "ready"}
        client.send(bytes(2 * 32000))  # two seconds: this provider raises
        client.send('{"type":"flush"}')
        assert json.loads(client.recv()) == {"type": "ready"}
        event = json.loads(client.recv())
        assert event["type"] == "error"
        assert "two seconds are too much" in event["message"]
        with pytest.raises(ConnectionClosed):
            client.recv()
        assert client.close_code == 1011
        other.send(bytes(16000))
        other.send('{"type":"flush"}')
        assert json.loads(other.recv()) == {"type": "final", "text": "0.5 seconds"}
    wait_until(lambda: plugin.status()["recognizers"] == 0, 5, "the recognizers to go")


def test_what_was_said_before_a_fault_is_not_lost(plugin: Daemon) -> None:
    with plugin.plain(max_utterance_ms=2500) as client:
        client.send(bytes(2500 * 32 + 2 * 32000))  # utterances of 2.5 s and, at the flush, of two
        client.send('{"type":"flush"}')
        assert client.recv() == "2.5 seconds"
        with pytest.raises(ConnectionClosed):
            client.recv()
        assert client.close_code == 1011


def test_a_client_that_does_not_read_is_cut_off(models: Path) -> None:
    path = f"{PLUGINS}:{':'.join(sys.path)}"
    with running_daemon(
        "/nonexistent",
        "--provider",
        "chatty",
        "--set",
        "endpoint.gate=off",
        "--set",
        "limits.send_s=1",
        PYTHONPATH=path,
    ) as daemon:
        client = RawClient(daemon, "/ws/stt")
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _number in range(20):
            client.send(BINARY, bytes(3200))
            client.send(TEXT, b'{"type":"flush"}')
        wait_until(lambda: "it took no data" in daemon.log(), 20, "the client to be cut off")
        wait_until(lambda: daemon.status()["sessions"] == 0, 10, "its session to end")


def test_a_long_recording_is_answered_in_full_after_eof(models: Path, two_cities: Clip) -> None:
    """The patience after the end of the stream is with a recognizer that stands still, not with one that works."""
    with running_daemon(models, "--set", "limits.flush_s=2") as daemon, daemon.plain() as client:
        client.send(at_16k_mono(two_cities) * 2)
        client.send('{"type":"eof"}')
        reply = str(client.recv(60))
        assert reply.lower().count("best of times") == 2
        assert reply.lower().count("superlative") == 2


def test_sigterm_loses_no_message_that_was_received(models: Path, two_cities: Clip) -> None:
    pcm = at_16k_mono(two_cities)[: int(5.45 * 32000)] + bytes(32000)
    with running_daemon(models) as daemon, daemon.plain() as client:
        for _number in range(12):
            client.send(pcm)
        time.sleep(1)
        daemon.process.send_signal(signal.SIGTERM)
        replies = [str(message) for message in _until_closed(client)]
        assert daemon.process.wait(30) == 0
        received = float(re.findall(r"audio_s=([\d.]+)", daemon.log())[-1])
        assert len(replies) == round(received / (len(pcm) / 32000))


def _until_closed(client: Any) -> Iterator[Any]:
    try:
        while True:
            yield client.recv(30)
    except ConnectionClosed:
        return


def test_text_messages_do_not_put_off_an_answer(whisper: Daemon, two_cities: Clip) -> None:
    client = RawClient(whisper, "/api/v1/ws")
    client.send(BINARY, at_16k_mono(two_cities)[: 2 * 32000])
    client.socket.settimeout(0.3)
    deadline = time.monotonic() + 5
    while True:
        client.send(TEXT, b"still there?")
        try:
            received = client.receive()
        except TimeoutError:
            assert time.monotonic() < deadline, "no answer while text messages come"
            continue
        assert received is not None
        assert received[0] == TEXT
        return


def test_a_quiet_client_may_ping_as_often_as_it_likes(vosk: Daemon) -> None:
    client = RawClient(vosk, "/ws/stt")
    assert client.receive_text() == {"type": "ready"}
    for _second in range(3):
        for _number in range(120):
            client.send(10, b"")
        time.sleep(1.05)
    client.send(9, b"hello")
    assert client.receive() == (10, b"hello")


def test_a_message_of_silence_does_not_hold_up_the_others(vosk: Daemon) -> None:
    with vosk.json(encoding="pcm_mulaw", sample_rate=8000) as client:
        client.recv()
        client.send(b"\xff" * (30 << 20))
        slowest = 0.0
        for _number in range(30):
            started = time.monotonic()
            assert vosk.get("/livez")[0] == 200
            slowest = max(slowest, time.monotonic() - started)
        client.send('{"type":"eof"}')
        assert list(client) == []
    # A bound that only a blocked loop breaks; bench/ is for figures.
    assert slowest < 0.5
