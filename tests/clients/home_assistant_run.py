"""Start sttd with each local provider, and have Home Assistant speak to it. `make home-assistant` runs it."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import jiwer
from tests.support import CACHE, ROOT, at_16k_mono, finals, json_events, running_daemon, shared_clips

if TYPE_CHECKING:
    from tests.support import Clip

SETTINGS = ("--set", "wyoming.listen=127.0.0.1:0")
CHUNK_MS = 64
"""What Home Assistant sends at a time."""
DITHER = 0.1
"""Share of letters by which two runs of vosk over the same audio may differ: Kaldi adds random noise."""


def check(python: str, provider: str, clips: list[Clip]) -> None:
    """Compare each text with that of `/ws/stt`; nobody may wait for ever, whatever is sent."""
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


if __name__ == "__main__":
    check(sys.argv[1], "faster_whisper", shared_clips("en/")[:3])
    check(sys.argv[1], "vosk", shared_clips("ko/")[:3])
