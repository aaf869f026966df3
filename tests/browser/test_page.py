"""The page at `/` in a real Chromium, with real speech. Skipped where there is no Chromium."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
import wave
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.browser.chromium import Page, chromium
from tests.support import ROOT, Clip, Daemon, at_16k_mono, running_daemon, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or ""
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium (apt install chromium)"),
]

ALLOWED = "--use-fake-ui-for-media-stream"
"""The browser gives the microphone to whoever asks."""
SECOND = bytes(32000)
PICTURES = os.environ.get("STTD_PICTURES", "")


@pytest.fixture(scope="module")
def sound(two_cities: Clip, beckett: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two utterances."""
    path = tmp_path_factory.mktemp("sound") / "sound.wav"
    best, ever = at_16k_mono(two_cities)[: 3 * 32000], at_16k_mono(beckett)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(SECOND + best + 2 * SECOND + ever + 2 * SECOND)
    return path


@pytest.fixture
def browser(tmp_path: Path, sound: Path) -> AbstractContextManager[Page]:
    return chromium(CHROMIUM, tmp_path / "profile", sound, ALLOWED)


@pytest.fixture
def page(browser: AbstractContextManager[Page], whisper: Daemon) -> Iterator[Page]:
    with browser as page:
        page.go(f"http://{whisper.address}/")
        yield page
        assert page.faults == []


def picture(page: Page, name: str) -> None:
    if PICTURES:
        page.picture(ROOT / PICTURES / f"{name}.png")


def test_two_utterances_from_the_microphone(page: Page) -> None:
    page.wait_for("tiny.en, faster_whisper", "#engine")
    picture(page, "ready")
    page.click("#microphone")
    page.wait_for("best of", "#partial")
    picture(page, "partial")
    page.wait_for("best of times", "#text")
    page.wait_for("no matter", "#text")
    picture(page, "final")
    assert page.text("#partial") == ""
    assert page.evaluate("document.querySelectorAll('#text p').length") >= 2
    assert page.text("#status") == "Listening."
    page.click("#microphone")
    assert page.evaluate("document.querySelector('#microphone').ariaPressed") == "false"


def test_a_page_that_is_opened_while_the_model_loads(
    browser: AbstractContextManager[Page], models: Path, tmp_path: Path
) -> None:
    """As a newcomer does, to whom `make serve` prints the address at once; the first load takes some seconds."""
    state = str(tmp_path / "state")
    with running_daemon(models, ready=False, XDG_STATE_HOME=state) as daemon, browser as page:
        page.go(f"http://{daemon.address}/")
        page.wait_for("tiny.en, faster_whisper", "#engine")


def test_push_to_talk(page: Page) -> None:
    page.key("keyDown", "Space", " ")
    page.wait_for("best of", "#partial")
    page.key("keyUp", "Space", " ")
    page.wait_for("best of", "#text", 5)
    assert page.sent == ['{"type": "flush"}'], "the text does not wait for a pause"
    assert page.evaluate("document.querySelector('#microphone').ariaPressed") == "false"


def test_a_file(page: Page, two_cities: Clip, tmp_path: Path) -> None:
    page.choose("#file", two_cities.path)
    page.wait_for("is done", "#status")
    picture(page, "file")
    assert "best of times" in page.text("#text")
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.click("#copy")
    page.wait_for("Copied", "#status")
    assert "best of times" in page.evaluate("copied")
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.click("#srt")
    wait_until((tmp_path / "speech.srt").exists, 10, "a download")
    cues = (tmp_path / "speech.srt").read_text().strip().split("\n\n")
    assert len(cues) > 6
    assert cues[0].startswith("1\n00:00:0")
    assert all(len(cue.split("\n")[2]) <= 84 for cue in cues)
    (tmp_path / "no.mp3").write_text("This is no sound.")
    page.choose("#file", tmp_path / "no.mp3")
    page.wait_for("not an audio file", "#status")


def test_captions(page: Page, whisper: Daemon) -> None:
    page.go(f"http://{whisper.address}/?captions=1")
    page.wait_for("best of times", "#text")
    picture(page, "captions")
    assert page.evaluate("getComputedStyle(document.querySelector('footer')).display") == "none"


def test_a_microphone_that_is_refused(tmp_path: Path, sound: Path, whisper: Daemon) -> None:
    with chromium(CHROMIUM, tmp_path / "profile", sound) as page:
        page.go(f"http://{whisper.address}/")
        page.call("Browser.setPermission", permission={"name": "microphone"}, setting="denied")
        page.click("#microphone")
        page.wait_for("blocks the microphone", "#status")
        picture(page, "denied")
        assert page.evaluate("document.querySelector('#microphone').ariaPressed") == "false"


def test_a_page_that_is_not_secure(page: Page) -> None:
    page.evaluate("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    page.click("#microphone")
    page.wait_for("http://localhost", "#status")


def test_a_token(browser: AbstractContextManager[Page], models: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text('kitchen = "a-token-of-many-letters"')
    with running_daemon(models, "--set", f"access.tokens_file={tokens}") as daemon, browser as page:
        page.go(f"http://{daemon.address}/")
        page.click("#microphone")
        page.wait_for("asks for a token", "#status")
        picture(page, "token")
        for token, told in (("wrong", "does not know"), ("a-token-of-many-letters", "Listening")):
            page.evaluate(f"document.querySelector('#token').value = '{token}'")
            page.click("#ask button")
            page.wait_for(told, "#status")
        page.wait_for("best of", "#text")
        page.go(f"http://{daemon.address}/")
        page.click("#microphone")
        page.wait_for("Listening", "#status")


@contextmanager
def at_port(models: Path | str, port: int) -> Iterator[None]:
    with running_daemon(models, "--listen", f"127.0.0.1:{port}"):
        yield


def test_a_daemon_that_goes_and_comes(browser: AbstractContextManager[Page], models: Path) -> None:
    with running_daemon(models) as daemon:
        port = daemon.host_port[1]
    with browser as page:
        with at_port(models, port):
            page.go(f"http://127.0.0.1:{port}/")
            page.click("#microphone")
            page.wait_for("best of times", "#text")
        page.wait_for("what you say is kept", "#status")
        picture(page, "gone")
        time.sleep(5)
        assert "ever" not in page.text("#text").lower()
        with at_port(models, port):
            page.wait_for("ever tried", "#text")
            page.wait_for("no matter", "#text")


def test_a_language_that_the_model_does_not_know(page: Page) -> None:
    page.evaluate("document.querySelector('#language').value = 'xx'")
    page.click("#microphone")
    page.wait_for("language", "#status")
    assert page.evaluate("document.querySelector('#microphone').ariaPressed") == "false"
    page.evaluate("document.querySelector('#language').value = 'en'")
    page.evaluate("document.querySelector('#language').dispatchEvent(new Event('change'))")
    page.click("#microphone")
    page.wait_for("best of", "#text")


def test_no_model(browser: AbstractContextManager[Page], models: Path, tmp_path: Path) -> None:
    """The page says what to do; once it is done, the next click gives text."""
    with running_daemon(tmp_path / "empty", ready=False) as daemon, browser as page:
        page.go(f"http://{daemon.address}/")
        page.click("#microphone")
        page.wait_for("sttd models pull", "#status")
        picture(page, "no_model")
        (tmp_path / "empty/faster_whisper").mkdir(parents=True)
        shutil.copytree(models / "faster_whisper/tiny.en", tmp_path / "empty/faster_whisper/tiny.en")
        wait_until(lambda: daemon.status()["ready"], 30, "the model to be loaded")
        page.click("#microphone")
        page.wait_for("best of", "#text")


def test_the_json_document_s_own_client(browser: AbstractContextManager[Page], whisper: Daemon) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(ROOT / "tests/clients"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, browser as page:
        threading.Thread(target=server.serve_forever).start()
        page.go(f"http://localhost:{server.server_port}/json_document.html#{whisper.address}")
        page.click("#start")
        page.wait_for("best of", "#partial")
        page.wait_for("best of times", "#text")
        server.shutdown()


def test_behind_a_proxy_with_a_prefix(browser: AbstractContextManager[Page], whisper: Daemon) -> None:
    """The page, its files and its WebSocket are all found beside it."""
    with prefixed(whisper.host_port) as port, browser as page:
        page.go(f"http://127.0.0.1:{port}/speech/")
        page.wait_for("tiny.en", "#engine")
        page.click("#microphone")
        page.wait_for("best of", "#text")
        assert page.faults == []


@contextmanager
def prefixed(daemon: tuple[str, int]) -> Iterator[int]:
    """A proxy that serves the daemon below /speech/."""
    stopped = threading.Event()

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection(daemon) as server:
            head = b""
            while b"\r\n\r\n" not in head and (data := client.recv(65536)):
                head += data
            # One request a connection, so that nothing else has to be rewritten.
            head = head.replace(b" /speech/", b" /", 1).replace(b"Connection: keep-alive", b"Connection: close")
            server.sendall(head)
            back = threading.Thread(target=pump, args=(server, client))
            back.start()
            pump(client, server)
            back.join()

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while not stopped.is_set():
                threading.Thread(target=serve, args=(listener.accept()[0],)).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,)).start()
        yield listener.getsockname()[1]
        stopped.set()
        listener.shutdown(socket.SHUT_RDWR)
