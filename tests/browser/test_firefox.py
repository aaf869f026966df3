"""The page in a real Firefox, whose microphone is one of PulseAudio's. Driven over WebDriver BiDi (W3C)."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import websocket

from tests.loudspeaker import CAN_HEAR, WHY_NOT, Speaker, complete, loudspeaker
from tests.support import Daemon, normalized, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox") or ""
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not FIREFOX, reason="there is no Firefox (apt install firefox-esr)"),
    pytest.mark.skipif(not CAN_HEAR, reason=WHY_NOT),
]
ALLOWED = 'user_pref("media.navigator.permission.disabled", true);\n'
"""Firefox gives the microphone to whoever asks."""


class Page:
    """The tab of a Firefox."""

    def __init__(self, url: str) -> None:
        self._socket = websocket.create_connection(f"{url}/session", timeout=30, suppress_origin=True)
        self._number = 0
        self._call("session.new", capabilities={})
        self._tab = self._call("browsingContext.getTree")["contexts"][0]["context"]

    def close(self) -> None:
        self._socket.close()

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                assert message["type"] == "success", message
                return dict(message["result"])

    def go(self, url: str) -> None:
        self._call("browsingContext.navigate", context=self._tab, url=url, wait="complete")

    def evaluate(self, code: str) -> str:
        """The value of an expression, as if somebody had just clicked."""
        found = self._call(
            "script.evaluate", expression=code, target={"context": self._tab}, awaitPromise=True, userActivation=True
        )
        assert found["type"] == "success", found
        return str(found["result"].get("value"))

    def text(self, selector: str) -> str:
        return self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")


@contextmanager
def firefox(folder: Path, speaker: Speaker) -> Iterator[Page]:
    folder.mkdir()
    (folder / "user.js").write_text(ALLOWED)
    command = [FIREFOX, "--headless", "--no-remote", "--profile", str(folder), "--remote-debugging-port=0"]
    own = {**os.environ, **speaker.environment}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=own) as process:
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(process.stderr or ()))
        reader.start()
        try:
            wait_until(lambda: any("BiDi listening" in line for line in lines), 60, "Firefox")
            found = re.search(r"BiDi listening on (ws://\S+)", "".join(lines))
            assert found
            with closing(Page(found[1])) as page:
                yield page
        finally:
            process.terminate()
            process.wait(30)
            reader.join()


def test_two_utterances_from_the_microphone(whisper: Daemon, tmp_path: Path) -> None:
    with loudspeaker(tmp_path) as speaker, firefox(tmp_path / "profile", speaker) as page:
        page.go(f"http://{whisper.address}/")
        wait_until(lambda: "tiny.en" in page.text("#engine"), 20, "the page to know the model")
        page.evaluate("document.querySelector('#microphone').click()")
        wait_until(lambda: page.text("#status") == "Listening.", 20, "the page to listen")
        for number in (1, 2):
            speaker.play().wait()
            wait_until(lambda number=number: page.text("#text").count("machine") == number, 10, f"text {number}")
        assert complete(2, [normalized(page.text("#text").replace("\n", " "))])
