"""The service as it is installed: a booted Debian, the package, and what may happen to it in a year.

`make booted` runs it, as root. The machine shares the loopback interface with this one, so clients run here.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from textwrap import dedent
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from wyoming.asr import Transcript
from wyoming.audio import AudioChunk, AudioStop
from wyoming.client import AsyncClient

from tests.booted.machine import Machine, booted, filled, package, run
from tests.support import ROOT, Clip, at_16k_mono, finals, json_events, pieces, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.booted, pytest.mark.timeout(900)]
URL = "ws://127.0.0.1:3000/ws/stt"
DROP_IN = "/etc/systemd/system/sttd.service.d/99-test.conf"
TOKEN = "a-token-for-the-booted-machine"


@pytest.fixture(scope="module")
def machine(models: object) -> Iterator[Machine]:
    for program in ("debootstrap", "systemd-nspawn"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing")
    if os.getuid():
        pytest.skip("only root can boot a machine")
    with booted(filled()) as machine:
        machine.run("sh", "-c", "apt-get install -y --no-install-recommends /opt/sttd_*.deb", timeout=600)
        machine.run("sttd", "models", "pull")
        yield machine


@pytest.fixture
def settings(machine: Machine) -> Iterator[Any]:
    """Change the unit, and restart; all is as it was afterwards."""

    def change(*lines: str) -> None:
        machine.write(DROP_IN, "[Service]\n" + "\n".join(lines) + "\n")
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "reset-failed", "sttd.service")
        machine.run("systemctl", "restart", "sttd.service")

    yield change
    (machine.root / DROP_IN.lstrip("/")).unlink(missing_ok=True)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "reset-failed", "sttd.service")
    machine.run("systemctl", "restart", "sttd.service")


@contextmanager
def knocking() -> Iterator[list[OSError]]:
    """Connect again and again; the errors of those that were refused."""
    refused: list[OSError] = []
    over = threading.Event()

    def knock() -> None:
        while not over.is_set():
            try:
                socket.create_connection(("127.0.0.1", 3000), timeout=5).close()
            except OSError as error:
                refused.append(error)
            time.sleep(0.02)

    thread = threading.Thread(target=knock)
    thread.start()
    try:
        yield refused
    finally:
        over.set()
        thread.join()


def test_it_is_installed_started_and_understands_speech(machine: Machine, beckett: Clip) -> None:
    assert machine.show("ActiveState") == "active"
    assert machine.show("ActiveState", "sttd.socket") == "active"
    assert len(machine.run("sttd", "transcribe").split()) > 5
    with connect("ws://127.0.0.1:8000/api/v1/ws") as client:
        client.send(at_16k_mono(beckett))
        assert "fail" in str(client.recv()).lower()
    with connect(URL) as client:
        assert "fail" in " ".join(finals(json_events(client, at_16k_mono(beckett)))).lower()
    ready = "0 sessions, faster_whisper tiny.en: ready"  # it is told a moment after the last one has gone
    wait_until(lambda: machine.show("StatusText") == ready, 10, "the status")
    user = int(machine.run("stat", "-c", "%u", f"/proc/{machine.show('MainPID')}"))
    assert 61184 <= user <= 65519, "a user of its own, from systemd's range for these"


def test_the_journal_has_priorities_and_no_transcripts(machine: Machine) -> None:
    lines = machine.run("journalctl", "-u", "sttd.service", "-o", "json", "--no-pager").splitlines()
    entries = [json.loads(line) for line in lines]
    ours = [entry for entry in entries if entry.get("_COMM") != "systemd" and "=" in str(entry["MESSAGE"])]
    assert {entry["PRIORITY"] for entry in ours} <= {"6", "4"}
    ended = [entry["MESSAGE"] for entry in ours if "disconnected" in entry["MESSAGE"]]
    assert all(key in ended[-1] for key in ("protocol=json", "peer=", "code=1000", "audio_s=", "finals=", "rtf="))
    assert "fail" not in json.dumps([entry["MESSAGE"] for entry in ours]).lower()


def test_vosk_with_a_model_from_a_stick(machine: Machine, settings: Any, korean: list[Clip]) -> None:
    machine.run("sttd", "models", "import", "/media/stick/vosk-small-ko")
    settings("Environment=STT_PROVIDER=vosk STTD_MODEL=vosk-small-ko")
    pcm = at_16k_mono(korean[0])
    with connect(URL, open_timeout=60) as client:
        text = " ".join(finals(json_events(client, pcm)))
    with connect("ws://127.0.0.1:8000/api/v1/ws") as client:
        client.send(pcm)
        assert str(client.recv()) == text != ""


def test_killed_it_is_started_again_and_nobody_is_refused(machine: Machine, beckett: Clip) -> None:
    before = machine.show("NRestarts")
    with knocking() as refused:
        machine.run("systemctl", "kill", "-s", "KILL", "--kill-who=main", "sttd.service")
        with connect(URL, open_timeout=60) as client:
            assert finals(json_events(client, at_16k_mono(beckett)))
    assert not refused
    assert int(machine.show("NRestarts")) == int(before) + 1


def test_a_burst_of_clients_through_the_socket_is_served_whole(machine: Machine) -> None:
    """As after a restart of the box: all connect at once, and the socket is there before sttd is."""
    number = 60
    answers: list[str] = []
    all_connected = threading.Barrier(number)

    def client() -> None:
        with connect(URL, open_timeout=60) as one:
            all_connected.wait(60)
            answers.append(str(one.recv(30)))

    machine.run("systemctl", "stop", "sttd.service")
    clients = [threading.Thread(target=client) for _ in range(number)]
    for one in clients:
        one.start()
    for one in clients:
        one.join(120)
    assert answers == ['{"type": "ready"}'] * number


def test_a_wedged_loop_is_noticed(machine: Machine, settings: Any, beckett: Clip) -> None:
    settings("Environment=PYTHONPATH=/opt/plugins STTD_PROVIDER=wedged", "WatchdogSec=6")
    before = machine.show("MainPID")
    with connect(URL) as client:
        client.send(at_16k_mono(beckett))
        wait_until(lambda: machine.show("MainPID") not in (before, "0"), 30, "another process")
    assert "Watchdog timeout" in machine.journal()


def test_memory_that_runs_out_ends_sttd_alone(machine: Machine, settings: Any, beckett: Clip) -> None:
    settings("Environment=PYTHONPATH=/opt/plugins STTD_PROVIDER=hungry", "MemoryHigh=infinity", "MemoryMax=400M")
    others = machine.show("MainPID", "systemd-journald.service")
    before = machine.show("MainPID")
    with machine.memory_limited(int(before), 400 << 20), connect(URL) as client:
        client.send(at_16k_mono(beckett))
        wait_until(lambda: machine.show("MainPID") not in (before, "0"), 60, "another process")
    assert "status=9/KILL" in machine.journal() or "oom-kill" in machine.journal()
    assert machine.show("MainPID", "systemd-journald.service") == others


def test_stopping_lets_every_session_say_what_it_has(machine: Machine, two_cities: Clip) -> None:
    pcm = at_16k_mono(two_cities)[: 7 * 32000]
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(URL)) for _number in range(4)]
        for client in clients:
            assert json.loads(client.recv()) == {"type": "ready"}
            for piece in pieces(pcm):
                client.send(piece)
        time.sleep(1)  # what the kernel still holds was not received
        started = time.monotonic()
        machine.run("systemctl", "stop", "sttd.socket", "sttd.service")
        assert time.monotonic() - started < 45
        for client in clients:
            events = [json.loads(message) for message in client]
            assert "best of times" in " ".join(finals(events)).lower()
            assert client.close_code == 1001
    assert machine.show("Result") == "success"
    assert machine.show("ExecMainStatus") == "0"
    machine.run("systemctl", "start", "sttd.socket", "sttd.service")


def test_reload(machine: Machine) -> None:
    machine.write("/etc/sttd/conf.d/10-test.toml", "[limits]\nidle_s = 77\n")
    machine.run("systemctl", "reload", "sttd.service")
    wait_until(lambda: "reloaded: limits.idle_s" in machine.journal(), 10, "the reload")
    machine.write("/etc/sttd/conf.d/10-test.toml", "[limits]\nidle_s = 'soon'\n")
    machine.run("systemctl", "reload", "sttd.service")
    wait_until(lambda: "nothing is reloaded" in machine.journal(), 10, "the complaint")
    assert machine.show("ActiveState") == "active"
    (machine.root / "etc/sttd/conf.d/10-test.toml").unlink()
    machine.run("systemctl", "reload", "sttd.service")


def test_credentials(machine: Machine, settings: Any) -> None:
    machine.write("/etc/sttd/tokens.toml", f'kitchen = "{TOKEN}"\n', 0o600)
    settings("LoadCredential=tokens:/etc/sttd/tokens.toml")
    with pytest.raises(InvalidStatus, match="401"), connect(URL):
        pass
    with connect(URL, additional_headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        assert json.loads(client.recv()) == {"type": "ready"}
    assert TOKEN not in machine.journal()


@pytest.mark.parametrize("name", ["10-lan", "20-cloud", "30-gpu", "40-no-wx"])
def test_drop_ins(machine: Machine, settings: Any, korean: list[Clip], name: str) -> None:
    """sttd starts with each, and understands speech; without writable code memory that is vosk's business."""
    machine.write("/etc/sttd/tokens.toml", f'kitchen = "{TOKEN}"\n', 0o600)
    machine.run("groupadd", "--system", "--force", "render")  # udev makes it where there is a GPU
    lines = (ROOT / f"systemd/sttd.service.d/{name}.conf").read_text().splitlines()
    settings(*lines, "Environment=STT_PROVIDER=vosk STTD_MODEL=vosk-small-ko")
    with connect(URL, additional_headers={"Authorization": f"Bearer {TOKEN}"}, open_timeout=60) as client:
        assert finals(json_events(client, at_16k_mono(korean[0])))


def test_the_page_is_installed(machine: Machine) -> None:
    assert machine.show("ActiveState") == "active"
    with urlopen("http://127.0.0.1:3000/") as page:
        assert b"<title>sttd" in page.read()


def test_the_doctor_finds_all_well(machine: Machine) -> None:
    machine.run("systemctl", "restart", "sttd.service")
    found = json.loads(machine.run("sttd", "doctor", "--json"))
    assert {finding["what"]: finding["state"] for finding in found if finding["state"] != "ok"} == {}
    (service,) = [finding["text"] for finding in found if finding["what"] == "service"]
    assert re.fullmatch(r"sttd\.service is active running; exposure \d\.\d (SAFE|OK)", service)
    assert sum(finding["text"].endswith("sttd runs there") for finding in found) == 2


def test_home_assistant_as_its_page_says(machine: Machine, beckett: Clip) -> None:
    """The settings and the commands of docs/home-assistant.md, but for the address: here it is the loopback one."""
    page = (ROOT / "docs/home-assistant.md").read_text()
    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL))
    kept = (machine.root / "etc/sttd/sttd.toml").read_text()
    chosen = blocks["toml"].replace("0.0.0.0", "127.0.0.1").replace('"base"', '"tiny.en"')
    machine.write("/etc/sttd/sttd.toml", dedent(chosen) + kept)
    commands = dedent(blocks["sh"]).replace("sudo ", "")
    machine.run("sh", "-ec", commands)
    try:
        assert asyncio.run(said_to_wyoming("tcp://127.0.0.1:10300", at_16k_mono(beckett)))
    finally:
        machine.write("/etc/sttd/sttd.toml", kept)
        machine.run("rm", "/etc/systemd/system/sttd.service.d/15-wyoming.conf")
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "restart", "sttd")


async def said_to_wyoming(uri: str, pcm: bytes) -> str:
    async with AsyncClient.from_uri(uri) as client:
        await client.write_event(AudioChunk(rate=16000, width=2, channels=1, audio=pcm).event())
        await client.write_event(AudioStop().event())
        while (event := await client.read_event()) is not None:
            if Transcript.is_type(event.type):
                return Transcript.from_event(event).text
    raise AssertionError("it never answered")


def test_an_upgrade_keeps_the_settings_and_brings_the_new_code(machine: Machine, beckett: Clip) -> None:
    """To the same package with a higher version; whoever connects meanwhile is served."""
    newer = machine.root / "opt/newer"
    run("dpkg-deb", "-R", str(package()), str(newer))
    control = newer / "DEBIAN/control"
    control.write_text(re.sub("(?m)^Version: .*", "Version: 99", control.read_text()))
    (newer / "opt/sttd/lib/site-packages/sttd/news.py").write_text("")
    machine.run("dpkg-deb", "-Znone", "-b", "/opt/newer", "/opt/newer.deb")
    machine.write("/etc/sttd/sttd.toml", "# mine\n" + (machine.root / "etc/sttd/sttd.toml").read_text())
    with knocking() as refused:
        machine.run("apt-get", "install", "-y", "/opt/newer.deb", timeout=600)
        with connect(URL, open_timeout=60) as client:
            assert finals(json_events(client, at_16k_mono(beckett)))
    assert not refused
    assert (machine.root / "etc/sttd/sttd.toml").read_text().startswith("# mine\n")
    machine.run("/opt/sttd/bin/python3", "-c", "import sttd.news")


def test_a_filesystem_that_is_read_only(machine: Machine, beckett: Clip) -> None:
    """The same machine once more, with nothing that can be written but memory."""
    machine.power_off()
    with booted(machine.root, "--read-only", "--tmpfs=/var", "--tmpfs=/tmp") as frozen:
        assert "Read-only" in frozen.run("touch", "/opt/sttd/x", check=False, errors=True)
        wait_until(lambda: frozen.show("ActiveState") == "active", 60, "the service")
        with connect(URL) as client:
            assert finals(json_events(client, at_16k_mono(beckett)))


def test_after_a_reboot_it_runs_and_removed_it_leaves_nothing(machine: Machine, beckett: Clip) -> None:
    with booted(machine.root) as again:
        wait_until(lambda: again.show("ActiveState") == "active", 60, "the service")
        with connect(URL) as client:
            assert finals(json_events(client, at_16k_mono(beckett)))
        again.run("apt-get", "remove", "-y", "sttd")
        assert again.show("LoadState") == "not-found"
        assert (machine.root / "etc/sttd/sttd.toml").exists()
        assert (machine.root / "opt/sttd/models/faster_whisper/tiny.en").exists()
        assert not (machine.root / "opt/sttd/lib").exists()
        again.run("apt-get", "purge", "-y", "sttd")
        left = again.run("find", "/etc", "/opt/sttd", "/usr", "/var", "-name", "*sttd*", check=False).split()
        assert [path for path in left if not path.startswith("/var/log/journal")] == []
