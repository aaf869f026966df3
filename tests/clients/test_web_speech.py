"""Programs made for browsers' SpeechRecognition, over sttd's, in a real Chromium. `make clients` runs them."""

from __future__ import annotations

import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.browser.chromium import Page, chromium
from tests.browser.test_page import ALLOWED, CHROMIUM, sound
from tests.clients.test_clients import NODE, scripts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support import Daemon

__all__ = ["scripts", "sound"]  # fixtures
pytestmark = [
    pytest.mark.clients,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium (apt install chromium)"),
]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def page(whisper: Daemon, scripts: Path, tmp_path: Path, sound: Path) -> Iterator[Page]:
    """A page of another origin, which imports sttd's module."""
    bundle = (NODE, scripts / "bundle.mjs", scripts / "web_speech.mjs", tmp_path / "bundle.js")
    subprocess.run(bundle, check=True)
    (tmp_path / "index.html").write_text(
        f'<script type="module" src="http://{whisper.address}/speech-recognition.js"></script>'
        '<script type="module" src="bundle.js"></script>'
        '<div id="dictation"></div><button id="annyang"></button><p id="command"></p>'
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever).start()
        with chromium(CHROMIUM, tmp_path / "profile", sound, ALLOWED) as page:
            page.go(f"http://localhost:{server.server_port}/index.html")
            yield page
        server.shutdown()


def test_react_speech_recognition(page: Page) -> None:
    page.evaluate("new Promise((done) => setTimeout(done, 200))")  # React subscribes after it has drawn
    page.click("#react")
    page.wait_for("best of", "#interim")
    assert page.text("#listening") == "true"
    page.wait_for("best of times", "#final")
    page.wait_for("no matter", "#final")
    page.click("#stop")
    page.wait_for("false", "#listening")


def test_annyang(page: Page) -> None:
    page.click("#annyang")
    page.wait_for("times", "#command")
