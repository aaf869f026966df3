"""What the daemon adds to a bare recognizer: processor time of live streams, of idle ones, and memory.

vosk with the gate off, so that both decode everything: the same recordings, in the same pieces, paced as they were
spoken, after both have heard them once. Beside it trio-websocket alone, which only reads the same messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench import servers
from bench.corpus import Missing, optional
from bench.latency import options
from bench.load import drive, processor_time, resident_mb, turns
from bench.report import Section, machine, or_missing, table
from bench.vosk_bare import decode, model
from sttd.audio.format import RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.load import Turn

STREAMS = 3
ROUNDS = 3
LIMITS = {100: 1.05, 20: 1.12}
IDLE = 100
IDLE_S = 10.0
MODELS = {"tiny.en": "faster_whisper", "base": "faster_whisper", "vosk-small-ko": "vosk"}
MORE_MB = 30
SENT = 10


def run(*, full: bool) -> Section:
    text = f"""{machine("vosk", "trio", "trio-websocket")}.

{or_missing(lambda: decoding(turns("ko", 2, 6), 12.0 if full else 6.0))}

{or_missing(lambda: sessions(1000 if full else 200))}

Resident memory of the daemon, and of a Python process that has loaded the same model with the same library: when the
model is loaded, and after {SENT} recordings. The goal is {MORE_MB} MB more at most.

{or_missing(memory)}"""
    return Section("overhead", "What the daemon costs", text)


def decoding(work: Sequence[Turn], seconds: float) -> str:
    """Each round measures everything once, so that a machine that grows slower does so for all."""
    vosk = optional("vosk")
    recognizer = vosk.KaldiRecognizer(model(), RATE)
    bare: list[float] = []
    found: dict[tuple[int, str], list[float]] = {}
    with servers.sttd("--provider", "vosk") as ours, servers.sink() as sink:
        for turn in work:
            decode(recognizer, turn.pcm)
        for number in range(ROUNDS + 1):
            bare.append(bare_cost(recognizer, work))
            for piece_ms in LIMITS:
                for name, server in (("sttd", ours), ("sink", sink)):
                    settings = options("json", server, STREAMS, seconds, piece_ms=piece_ms)
                    settings.url += "?gate=0&partials=0"
                    outcome = drive(settings, work)
                    if number:  # the first round is for warming up
                        found.setdefault((piece_ms, name), []).append(outcome.cpu_s / outcome.sent_s)
    base = median(bare[1:])
    rows = []
    for piece_ms, limit in LIMITS.items():
        costs, floor = found[piece_ms, "sttd"], median(found[piece_ms, "sink"])
        ratios = [cost / base for cost in costs]
        rows.append(
            [
                f"{piece_ms} ms",
                *(f"{1000 * each:.0f}" for each in (base, floor, median(costs))),
                f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                f"{(base + floor) / base:.2f}",
                f"{limit}",
            ]
        )
    header = ["messages", "bare, ms/s", "trio-websocket", "sttd", "sttd over bare", "with trio-websocket alone", "goal"]
    return f"""{STREAMS} live streams with the gate off, against a warm recognizer in a loop: processor time per \
second of audio.

{table(header, rows)}"""


def bare_cost(recognizer: object, work: Sequence[Turn]) -> float:
    """Seconds of processor time per second of audio."""
    started = time.process_time()
    for turn in work:
        decode(recognizer, turn.pcm)
    return (time.process_time() - started) / sum(turn.seconds for turn in work)


def sessions(number: int) -> str:
    from websockets.sync.client import connect

    rows = []
    with servers.sttd("--provider", "vosk", STTD_LIMITS__CONNECTIONS="1000") as server:
        url = f"ws://{server.address}/ws/stt"
        with connect(url) as client:
            client.recv()
        before = resident_mb(server.pid)
        rows.append(["ready", f"{before:.0f} MB", ""])
        with contextlib.ExitStack() as stack:
            for _ in range(IDLE):
                stack.enter_context(connect(url, ping_interval=None)).recv()
            cpu = processor_time(server.pid)
            time.sleep(IDLE_S)
            cpu = processor_time(server.pid) - cpu
            each = 1024 * (resident_mb(server.pid) - before) / IDLE
            rows.append(
                [f"{IDLE} idle sessions", f"{each:.0f} KiB each", f"{1000 * cpu / IDLE_S / IDLE:.2f} ms/s each"]
            )
        quarter = number // 4
        for part in range(4):
            asyncio.run(many(url, quarter))
            rows.append([f"after {quarter * (part + 1)} sessions", f"{resident_mb(server.pid):.0f} MB", ""])
    return table(["state", "resident", "processor time"], rows)


async def many(url: str, number: int) -> None:
    from websockets.asyncio.client import connect

    pcm = turns("ko", 2, 6)[0].pcm

    async def one() -> None:
        async with connect(url) as client:
            await client.send(pcm)
            await client.send('{"type": "eof"}')
            async for _message in client:
                pass

    for start in range(0, number, 4):
        await asyncio.gather(*(one() for _ in range(min(4, number - start))))


def memory() -> str:
    rows = []
    for name, provider in MODELS.items():
        folder = Path(servers.store()) / provider / name
        if not folder.exists():
            continue
        work = turns("ko" if provider == "vosk" else "en", 2, 6)[:SENT]
        bare = in_a_process(provider, folder, work)
        with servers.sttd("--provider", provider, "--model", name) as server:
            loaded = resident_mb(server.pid)
            drive(options("json", server, 1, 0, whole=True, once=True, flush=True), work)
            used = resident_mb(server.pid)
        more = [f"{ours - theirs:+.0f}" for ours, theirs in zip((loaded, used), bare, strict=True)]
        rows.append([provider, name, *(f"{mb:.0f}" for mb in (*bare, loaded, used)), *more])
    if not rows:
        raise Missing("models in the store")
    header = ["provider", "model", "library, loaded", "used", "sttd, loaded", "used", "more, loaded", "used"]
    return table(header, rows)


def in_a_process(provider: str, folder: Path, work: Sequence[Turn]) -> tuple[float, float]:
    """What bench/peers/library.py says."""
    command = [sys.executable, "-m", "bench.peers.library", provider, str(folder)]
    sent = pickle.dumps([turn.pcm for turn in work])
    loaded, used = subprocess.run(command, input=sent, stdout=subprocess.PIPE, check=True).stdout.split()
    return float(loaded), float(used)
