"""Uploaded recordings: word error rate and time against the library on the whole file, and what they cost live streams.

The recording is those of ../shared/speech/en, joined with half a second of silence to ten minutes. The library gets it
as a whole, with the same model and all cores.
"""

from __future__ import annotations

import io
import re
import threading
import time
import wave
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import servers
from bench.corpus import Missing, at_16k, clips, optional
from bench.gate_wer import normalized, whisper
from bench.latency import options
from bench.load import drive, turns
from bench.report import Section, machine, or_missing, table
from sttd.audio.format import RATE

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

LENGTH_S = 600
LIVE, UPLOADS = 8, 8
LIBRARY: dict[str, dict[str, Any]] = {
    "its defaults": {},
    "`vad_filter`": {"vad_filter": True},
    "no text before as context": {"condition_on_previous_text": False},
}


def run(*, full: bool) -> Section:
    seconds = 60.0 if full else 20.0
    text = f"""{machine("faster-whisper", "ctranslate2", "av")}; tiny.en, int8.

{or_missing(words)}

{LIVE} live streams of 2 to 5 s recordings, alone and beside {UPLOADS} uploads at a time, each a minute long; the goal \
is 1.3 times the latency at most.

{or_missing(lambda: beside_live_streams(seconds))}"""
    return Section("uploads", "Uploaded recordings", text)


def joined() -> tuple[NDArray[np.int16], str]:
    """Ten minutes of speech, and what is said in it."""
    parts: list[NDArray[np.int16]] = []
    said = []
    while sum(map(len, parts)) < LENGTH_S * RATE:
        for clip in clips("en", "speech"):
            parts += [at_16k(clip), np.zeros(RATE // 2, np.int16)]
            said.append(normalized(clip.transcript))
            if sum(map(len, parts)) >= LENGTH_S * RATE:
                break
    return np.concatenate(parts), " ".join(said)


def wav(pcm: NDArray[np.int16]) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(pcm.tobytes())
    return file.getvalue()


def upload(server: servers.Server, file: bytes) -> str:
    httpx = optional("httpx2")
    if httpx is None:
        raise Missing("the package httpx2")
    answer = httpx.post(
        f"http://{server.address}/v1/audio/transcriptions", files={"file": ("a.wav", file)}, timeout=900
    )
    if answer.status_code != 200:
        raise Missing(f"an answer: {answer.status_code} {answer.text}")
    return str(answer.json()["text"])


def whole(model: Any, audio: NDArray[np.float32], changes: dict[str, Any]) -> str:
    segments, _info = model.transcribe(audio, language="en", **changes)
    return " ".join(segment.text for segment in segments)


def words() -> str:
    jiwer = optional("jiwer")
    if jiwer is None:
        raise Missing("the package jiwer")
    pcm, said = joined()
    rows = []

    def measured(name: str, call: Callable[[], str]) -> None:
        started = time.monotonic()
        text = normalized(call())
        took = time.monotonic() - started
        rows.append([name, f"{100 * jiwer.wer(said, text):.2f} %", f"{took:.0f} s"])

    with servers.sttd("--provider", "faster_whisper") as server:
        measured("sttd", lambda: upload(server, wav(pcm)))
        peak = re.search(r"VmHWM:\s+(\d+)", open(f"/proc/{server.pid}/status").read())  # noqa: SIM115
    assert peak
    model = whisper(workers=1).whole
    audio = np.multiply(pcm, 1 / 32768, dtype=np.float32)
    for name, changes in LIBRARY.items():
        measured(f"the library, {name}", partial(whole, model, audio, changes))
    rounded = int(peak[1]) // 1024
    return f"""{table(["ten minutes of speech", "word error rate", "took"], rows)}

The daemon's memory was {rounded} MB at most. The goal is 0.5 points over the library at most."""


def beside_live_streams(seconds: float) -> str:
    work, (pcm, _said) = turns("en", 2, 5), joined()
    minute = wav(pcm[: 60 * RATE])
    rows = []
    with servers.sttd("--provider", "faster_whisper") as server:
        drive(options("json", server, LIVE, 5), work)
        alone = drive(options("json", server, LIVE, seconds), work)
        done: list[str] = []
        stop = threading.Event()

        def keep_uploading() -> None:
            while not stop.is_set():
                done.append(upload(server, minute))

        threads = [threading.Thread(target=keep_uploading) for _ in range(UPLOADS)]
        for thread in threads:
            thread.start()
        beside = drive(options("json", server, LIVE, seconds), work)
        stop.set()
        for thread in threads:
            thread.join()
    for name, outcome in (("alone", alone), (f"beside {UPLOADS} uploads", beside)):
        found = outcome.summary()
        columns = ("utterances", "without text", "latency p50 ms", "latency p95 ms", "cores", "word error rate")
        rows.append([name, *(str(found[column]) for column in columns)])
    ratio = np.percentile(beside.latencies, 95, method="higher") / np.percentile(alone.latencies, 95, method="higher")
    header = ["live streams", "utterances", "without text", "p50 ms", "p95 ms", "cores", "word error rate"]
    return f"{table(header, rows)}\n\nRatio of p95: {ratio:.2f}; {len(done)} uploads were answered meanwhile."
