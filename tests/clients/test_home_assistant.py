"""Home Assistant itself, with both local providers. `make home-assistant` installs and runs it."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import jiwer
import pytest

from tests.support import CACHE, ROOT, at_16k_mono, finals, json_events, running_daemon, shared_clips

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]

SETTINGS = ("--set", "wyoming.listen=127.0.0.1:0")
CHUNK_MS = 64
"""What Home Assistant sends at a time."""
DITHER = 0.1
"""Share of letters by which two runs of vosk over the same audio may differ: Kaldi adds random noise."""


@pytest.fixture(scope="module")
def python() -> Path:
    """Python with Home Assistant."""
    build, packages = ROOT / "build/home-assistant", ROOT / "tests/clients/home-assistant.txt"
    subprocess.run([sys.executable, "-m", "venv", build], check=True)
    install = (build / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", packages)
    subprocess.run(install, check=True)
    return build / "bin/python"


@pytest.mark.parametrize(("provider", "folder"), [("faster_whisper", "en/"), ("vosk", "ko/")])
def test_home_assistant(provider: str, folder: str, python: Path) -> None:
    """Each text is that of `/ws/stt`; nobody waits for ever, whatever is sent."""
    clips = shared_clips(folder)[:3]
    with running_daemon(CACHE / "models", "--provider", provider, *SETTINGS) as daemon:
        address = re.search(r"Wyoming\s+tcp://([\d.]+):(\d+)", "".join(daemon.lines))
        assert address
        wanted = {"nothing": "", "silence": "", "another language": ""}
        calls = [("nothing", "", b""), ("silence", "", bytes(64000)), ("another language", "xx", bytes(64000))]
        for clip in clips:
            pcm = at_16k_mono(clip)
            with daemon.json() as client:
                wanted[clip.name] = " ".join(finals(json_events(client, pcm, CHUNK_MS)))
            calls.append((clip.name, "", pcm))
        given = json.dumps([(name, language, base64.b64encode(pcm).decode()) for name, language, pcm in calls])
        done = subprocess.run(
            [python, ROOT / "tests/clients/home_assistant.py", *address.groups()],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    print(f"{provider}: {answers[0]}")
    for answer in answers[1:]:
        print(f"  {answer['name']}: {answer['result']} {answer['text']!r} after {answer['seconds']} s")
        text = wanted[answer["name"].removeprefix("at once: ")]
        assert answer["text"] == text or (text and jiwer.cer(text, answer["text"]) <= DITHER), text
    assert len(answers) == 1 + 2 * len(calls)
