"""Chromium without a display, driven over its debugging protocol (https://chromedevtools.github.io/devtools-protocol/).

Its microphone is a WAV file that is played once from the moment a page begins to listen.
"""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.request
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import websocket

from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Page:
    """A page in a tab."""

    def __init__(self, url: str) -> None:
        self._socket = websocket.create_connection(url, timeout=30, suppress_origin=True)
        self._number = 0
        self.faults: list[str] = []
        """What the page has thrown, and what the browser has refused it."""
        self.sent: list[str] = []
        """The texts that its WebSockets have sent."""
        for domain in ("Page", "Runtime", "Log", "DOM", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self._socket.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("method") == "Runtime.exceptionThrown":
                self.faults.append(json.dumps(message["params"]["exceptionDetails"])[:500])
            if message.get("method") == "Network.webSocketFrameSent" and message["params"]["response"]["opcode"] == 1:
                self.sent.append(message["params"]["response"]["payloadData"])
            if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                self.faults.append(message["params"]["entry"]["text"])
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])

    def evaluate(self, code: str, *, gesture: bool = False) -> Any:
        """The value of an expression; `gesture`: as if by a click."""
        found = self.call(
            "Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True, userGesture=gesture
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def text(self, selector: str) -> str:
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def click(self, selector: str) -> None:
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()", gesture=True)

    def key(self, kind: str, code: str, key: str) -> None:
        self.call("Input.dispatchKeyEvent", type=kind, code=code, key=key, windowsVirtualKeyCode=32)

    def choose(self, selector: str, *paths: Path) -> None:
        """Choose files, as in the browser's dialog."""
        node = self.call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        files = [str(path) for path in paths]
        self.call("DOM.setFileInputFiles", files=files, objectId=node["result"]["objectId"])

    def wait_for(self, what: str, selector: str, seconds: float = 30) -> str:
        """Wait until an element has a text in it."""
        wait_until(lambda: what.lower() in self.text(selector).lower(), seconds, f"{what!r} in {selector}")
        return self.text(selector)

    def go(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        wait_until(lambda: self.evaluate("document.readyState") == "complete", 20, url)

    def picture(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def chromium(program: str, folder: Path, sound: Path, *options: str) -> Iterator[Page]:
    """A page in a fresh browser."""
    command = [
        program,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=900,600",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={sound}%noloop",
        *options,
        "about:blank",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = folder / "DevToolsActivePort"
        wait_until(lambda: port.exists() and port.read_text().count("\n") > 0, 30, "Chromium")
        with urllib.request.urlopen(f"http://127.0.0.1:{port.read_text().split()[0]}/json") as answer:
            tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
        with closing(Page(tabs[0]["webSocketDebuggerUrl"])) as page:
            yield page
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
