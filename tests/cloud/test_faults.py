"""Each fault of a cloud, on each protocol, with a local provider to fall back on: no text is lost, nobody else notices.

`make test PYTEST_ARGS="-s -k test_a_fault"` prints what the client, and another session meanwhile, saw of each.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import jiwer
import pytest

from tests.cloud import deepgram_standin as dg
from tests.cloud import groq_standin as gq
from tests.support import SHARED_SPEECH, Clip, at_16k_mono, finals, normalized, pieces, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cloud.conftest import Starter
    from tests.cloud.standin import Standin
    from tests.support import Daemon

DEADLINE_S, LONGEST_S, NEVER_S = 3.0, 20.0, 3600.0
WORSE = 0.05 if SHARED_SPEECH.exists() else 0.2
"""By how much the share of wrong characters may grow: where an utterance is cut, a model hears a little else. Vosk
understands next to nothing of a synthetic voice, so that a word more or less is soon a tenth of its text."""
UTTERANCES = 2

GROQ = [
    ("401", [gq.Status(401)]),
    ("402", [gq.Status(402)]),
    ("413", [gq.Status(413)]),
    ("429", [gq.Status(429, {"retry-after": "30"})]),
    ("500", [gq.Status(500)] * 3),
    ("503", [gq.Status(503)] * 3),
    ("slow", [gq.Slow(6)]),
    ("drop", [gq.Drop()] * 3),
    ("malformed", [gq.Body(b"{not json")]),
    ("10 MB", [gq.Body(b'{"text": "' + bytes(10_000_000))]),
]
DEEPGRAM = [
    ("400", [dg.Reject(400)]),
    ("401", [dg.Reject(401)]),
    ("402", [dg.Reject(402)]),
    ("403", [dg.Reject(403)]),
    ("429", [dg.Reject(429)] * 9),
    ("503", [dg.Reject(503)] * 9),
    ("silent", [dg.Silent()]),
    ("10 MB", [dg.Says("x" * 10_000_000)] * 99),
]
SELF_HEALING = [
    ("429 once", [dg.Reject(429)]),
    ("503 once", [dg.Reject(503)]),
    ("drop", [dg.DropAfter(1.5)]),
    ("1011", [dg.CloseAfter(2.0, 1011, "NET-0000")]),
    ("1008", [dg.CloseAfter(2.0, 1008, "DATA-0000")]),
    ("malformed", [dg.Says("{not json")]),
    ("nonsense", [dg.Says('{"type": "Results", "channel": 5}')]),
    ("10 MB once", [dg.Says("x" * 10_000_000)]),
    ("never finalize", [dg.NeverFinalize()]),
    ("slow finalize", [dg.SlowFinalize(1.5)]),
    ("late", [dg.Late(2)]),
]


@dataclass
class Setting:
    """A daemon with a cloud and a fallback, what is said to it, and what happens when all is well."""

    daemon: Daemon
    standin: Standin
    fallback: str
    pcm: bytes
    transcript: str
    known_language: str
    """Who names it meets no fault."""
    plain_language: str
    """What the session with plain text names, to meet a fault of its own."""
    errors: float = 1.0
    seconds: float = 0.0
    files: int = 0
    threads: int = 0

    def undisturbed(self) -> None:
        for _slow_at_first in range(2):
            with self.neighbour() as neighbour, ThreadPoolExecutor(1) as pool:
                plain = pool.submit(self.plain)
                self.errors = self.count(self.json()[0])
                plain.result()
        self.seconds = neighbour.seconds
        self.files, self.threads = self.daemon.files(), self.daemon.threads()

    def count(self, text: str) -> float:
        return jiwer.cer(normalized(self.transcript), normalized(text))

    def json(self) -> tuple[str, list[dict[str, Any]]]:
        with self.daemon.json(engine=1, words=1) as client:
            say(client, self.pcm)
            events = [json.loads(message) for message in client]
        assert [event for event in events if event["type"] == "error"] == []
        return " ".join(finals(events)), [event for event in events if event["type"] == "final"]

    def plain(self) -> str:
        options = {"language": self.plain_language} if self.plain_language else {}
        with self.daemon.plain(**options) as client:
            client.send(self.pcm)
            return str(client.recv(60))

    @contextmanager
    def neighbour(self) -> Iterator[Neighbour]:
        """Another session that goes on meanwhile."""
        neighbour = Neighbour(self)
        thread = threading.Thread(target=neighbour.talk)
        thread.start()
        yield neighbour
        thread.join(60)
        assert self.count(neighbour.text) <= self.errors + WORSE, neighbour.text


@dataclass
class Neighbour:
    """A session without a fault; `seconds` from its first audio to its last final."""

    setting: Setting
    text: str = ""
    seconds: float = field(default=1e9)

    def talk(self) -> None:
        with self.setting.daemon.json(language=self.setting.known_language, partials=0) as client:
            started = time.monotonic()
            say(client, self.setting.pcm)
            events = [json.loads(message) for message in client]
        self.seconds = time.monotonic() - started
        self.text = " ".join(finals(events))


def say(client: Any, pcm: bytes) -> None:
    """Stream it faster than it was spoken, but not at once."""
    for piece in pieces(pcm):
        client.send(piece)
        time.sleep(0.01)
    client.send('{"type": "eof"}')


@pytest.fixture(scope="module")
def with_groq(_groq: gq.GroqStandin, start_groq: Starter, two_cities: Clip) -> Iterator[Setting]:
    sentence = "It was the best of times, it was the worst of times."
    pcm = at_16k_mono(two_cities)[: 46 * 3200] + bytes(32000)
    plenty = "groq.requests_per_minute=1000", "groq.seconds_per_hour=100000"
    with start_groq(
        f"groq.deadline_s={DEADLINE_S}", "fallback_pause_s=0", *plenty, fallback="faster_whisper"
    ) as daemon:
        setting = Setting(daemon, _groq, "faster_whisper", pcm * 2, f"{sentence} {sentence}", "en", "")
        setting.undisturbed()
        yield setting


@pytest.fixture(scope="module")
def with_deepgram(_deepgram: dg.DeepgramStandin, start_deepgram: Starter, korean: list[Clip]) -> Iterator[Setting]:
    clips = sorted(korean, key=lambda clip: len(clip.samples))[:2]
    pcm = b"".join(at_16k_mono(clip) + bytes(32000) for clip in clips)
    transcript = " ".join(clip.transcript for clip in clips)
    with start_deepgram(f"deepgram.deadline_s={DEADLINE_S}", "fallback_pause_s=0", fallback="vosk") as daemon:
        setting = Setting(daemon, _deepgram, "vosk", pcm, transcript, "ko", "ko-KR")
        setting.undisturbed()
        yield setting


def suffer(setting: Setting, name: str, *, falls_back: bool) -> None:
    """What three sessions see: one on each protocol that meets the fault, and one that does not."""
    with setting.neighbour() as neighbour, ThreadPoolExecutor(1) as pool:
        plain = pool.submit(setting.plain)
        text, found = setting.json()
        texts = {"json": text, "plain": plain.result()}
    for protocol, said in texts.items():
        print(
            f"{name:15} {protocol:6} wrong {setting.count(said):6.1%} (undisturbed {setting.errors:6.1%})   "
            f"another session took {neighbour.seconds:.2f} s (undisturbed {setting.seconds:.2f} s)"
        )
        assert setting.count(said) <= setting.errors + WORSE, said
    starts = [word["start"] for event in found for word in event["words"]]
    assert starts == sorted(starts)
    assert starts[-1] < len(setting.pcm) / 32000
    assert {event["fallback_from"] for event in found} <= {None, setting.daemon.status()["provider"]}
    assert (setting.fallback in {event["engine"] for event in found}) == falls_back
    wait_until(lambda: setting.daemon.status()["recognizers"] == 0, 10, "the recognizers to be given back")
    wait_until(lambda: setting.daemon.files() <= setting.files + 2, 10, "sockets to be closed")
    assert setting.daemon.threads() <= setting.threads + 4


@pytest.mark.parametrize(("name", "faults"), GROQ, ids=[name for name, _ in GROQ])
def test_a_fault_of_groq(groq: gq.GroqStandin, with_groq: Setting, name: str, faults: list[Any]) -> None:
    groq.faults.extend(faults * 2 * UTTERANCES)
    suffer(with_groq, name, falls_back=True)
    assert not groq.faults


@pytest.mark.parametrize(("name", "faults"), DEEPGRAM, ids=[name for name, _ in DEEPGRAM])
def test_a_fault_of_deepgram(
    deepgram: dg.DeepgramStandin, with_deepgram: Setting, name: str, faults: list[Any]
) -> None:
    deepgram.faults.extend(faults)
    deepgram.faults_in[with_deepgram.plain_language] = deque(faults)
    suffer(with_deepgram, name, falls_back=True)


@pytest.mark.parametrize(("name", "faults"), SELF_HEALING, ids=[name for name, _ in SELF_HEALING])
def test_a_fault_of_deepgram_after_which_the_stream_is_opened_again(
    deepgram: dg.DeepgramStandin, with_deepgram: Setting, name: str, faults: list[Any]
) -> None:
    deepgram.faults.extend(faults)
    deepgram.faults_in[with_deepgram.plain_language] = deque(faults)
    suffer(with_deepgram, name, falls_back=False)
    assert not deepgram.faults
    assert not deepgram.faults_in[with_deepgram.plain_language]


def held(setting: Setting, daemon: Daemon, standin: Standin) -> None:
    """One session waits for its cloud, for as long as another one talks and has its text."""
    with daemon.json(partials=0) as waiting:
        assert json.loads(waiting.recv(10)) == {"type": "ready"}
        waiting.send(setting.pcm)
        waiting.send('{"type": "flush"}')
        wait_until(lambda: not standin.faults, 10, "the cloud to be asked")
        other = replace(setting, daemon=daemon)
        with other.neighbour():
            pass
        with pytest.raises(TimeoutError):
            waiting.recv(0)
        daemon.process.kill()


def test_a_cloud_that_hangs_holds_up_its_own_session_alone_with_groq(
    groq: gq.GroqStandin, with_groq: Setting, start_groq: Starter
) -> None:
    groq.faults.append(gq.Slow(NEVER_S))
    with start_groq(f"groq.deadline_s={LONGEST_S}") as daemon:
        held(with_groq, daemon, groq)


def test_a_cloud_that_hangs_holds_up_its_own_session_alone_with_deepgram(
    deepgram: dg.DeepgramStandin, with_deepgram: Setting, start_deepgram: Starter
) -> None:
    deepgram.faults.append(dg.Silent())
    with start_deepgram(f"deepgram.deadline_s={LONGEST_S}") as daemon:
        held(with_deepgram, daemon, deepgram)
