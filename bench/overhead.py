"""What the daemon adds to a bare recognizer: processor time of live streams, of idle ones, and memory of sessions.

vosk with the gate off, so that both decode everything: the same recordings, in the same pieces, paced as they were
spoken, after both have heard them once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from bench import servers
from bench.corpus import optional
from bench.latency import options
from bench.load import drive, processor_time, resident_mb, turns
from bench.report import Section, machine, or_missing, table
from bench.vosk_bare import decode, model
from sttd.audio.format import RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.load import Turn

STREAMS = 3
LIMITS = {100: 1.05, 20: 1.12}
IDLE = 100
IDLE_S = 10.0


def run(*, full: bool) -> Section:
    text = f"""{machine("vosk", "trio", "trio-websocket")}.

{or_missing(lambda: decoding(turns("ko", 2, 6), 30.0 if full else 10.0))}

{or_missing(lambda: sessions(1000 if full else 200))}"""
    return Section("overhead", "What the daemon costs", text)


def decoding(work: Sequence[Turn], seconds: float) -> str:
    bare = bare_cost(work)
    rows = []
    with servers.sttd("--provider", "vosk") as server:
        for piece_ms, limit in LIMITS.items():
            run_options = options("json", server, STREAMS, seconds, piece_ms=piece_ms)
            run_options.url += "?gate=0"
            for _ in range(2):
                drive(run_options, work)
            outcome = drive(run_options, work)
            cost = outcome.cpu_s / outcome.sent_s
            rows.append(
                [f"{piece_ms} ms", f"{1000 * bare:.0f}", f"{1000 * cost:.0f}", f"{cost / bare:.2f}", f"{limit}"]
            )
    header = ["messages", "bare, ms per s of audio", "sttd, ms per s", "ratio", "at most"]
    return f"{STREAMS} live streams with the gate off, against a warm recognizer in a loop.\n\n{table(header, rows)}"


def bare_cost(work: Sequence[Turn]) -> float:
    """Seconds of processor time per second of audio, the second time round."""
    vosk = optional("vosk")
    loaded = model()
    recognizer = vosk.KaldiRecognizer(loaded, RATE)
    for turn in work:
        decode(recognizer, turn.pcm)
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
        asyncio.run(many(url, number))
        rows.append([f"after {number} sessions", f"{resident_mb(server.pid):.0f} MB", ""])
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
