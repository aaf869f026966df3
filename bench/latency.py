"""How long the text takes: finals of both providers over live streams, and against the documents' FastAPI sample.

Streams are paced as they were spoken (see bench/load.py). The sample finds no endpoints, so it is compared where a
client hands over one utterance at a time.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import servers
from bench.load import PING_S, Outcome, drive, turns
from bench.report import Section, machine, or_missing, table
from bench.vosk_bare import bare_finals
from sttd.config.config import SessionOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.load import Turn

COLUMNS = (
    "streams",
    "utterances",
    "without text",
    "latency p50 ms",
    "latency p95 ms",
    "ping p50 ms",
    "ping p99 ms",
    "cores",
    "MB",
    "word error rate",
)
CLIENTS = (1, 2, 4)


def run(*, full: bool) -> Section:
    seconds = 60.0 if full else 20.0
    streams = (1, 2, 4, 8) if full else (1, 4)
    silence = SessionOptions().min_silence_ms
    english = turns("en", 2, 5)
    text = f"""{machine("faster-whisper", "ctranslate2", "vosk", "fastapi", "uvicorn")}.

Recordings of 2 to 5 s, one after the other on each stream as fast as they were spoken, 100 ms a message, `/ws/stt`. \
Latency counts from the end of speech, so it holds {silence} ms of silence that ends an utterance. Pings are WebSocket \
pings every {1000 * PING_S:g} ms; cores are the server's processor time over wall time.

### faster_whisper, tiny.en

{or_missing(lambda: live("faster_whisper", english, streams, seconds))}

### vosk, Korean small model

{or_missing(lambda: live("vosk", turns("ko", 2, 6), streams, seconds))}

{or_missing(lambda: bare_finals(turns("ko", 2, 6)))}

### Against the FastAPI sample

The same recordings, each a message of its own, sent when the one before was answered; sttd is asked for the text with \
`{{"type": "flush"}}`. Both have tiny.en, int8, beam 5.

{or_missing(lambda: against_the_sample(english))}"""
    return Section("latency", "From the end of speech to the text", text)


def options(protocol: str, server: servers.Server, streams: int, seconds: float, **others: Any) -> argparse.Namespace:
    path = "/ws/stt" if protocol == "json" else "/api/v1/ws"
    return argparse.Namespace(
        protocol=protocol,
        url=f"ws://{server.address}{path}",
        streams=streams,
        seconds=seconds,
        pid=server.pid,
        **({"piece_ms": 100, "whole": False, "flush": False, "once": False} | others),
    )


def live(provider: str, work: Sequence[Turn], streams: Sequence[int], seconds: float) -> str:
    columns = COLUMNS if provider == "faster_whisper" else COLUMNS[:-1]  # words of Korean are parted in many ways
    rows = []
    with servers.sttd("--provider", provider) as server:
        for number in streams:
            drive(options("json", server, number, 5), work)  # as after some use
            rows.append(row(drive(options("json", server, number, seconds), work), columns))
    return table(columns, rows)


def row(outcome: Outcome, columns: Sequence[str]) -> list[str]:
    found = outcome.summary()
    return ["" if found[name] is None else str(found[name]) for name in columns]


def against_the_sample(work: Sequence[Turn]) -> str:
    rows = []
    with (
        servers.sttd("--provider", "faster_whisper") as ours,
        servers.fastapi_sample(Path(servers.store()) / "faster_whisper/tiny.en") as theirs,
    ):
        for clients in CLIENTS:
            sample = drive(options("plain", theirs, clients, 0, whole=True, once=True), work)
            sttd = drive(options("plain", ours, clients, 0, whole=True, once=True, flush=True), work)
            ratio = float(np.median(sttd.latencies) / np.median(sample.latencies))
            for name, outcome in (("FastAPI sample", sample), ("sttd", sttd)):
                found = outcome.summary()
                rows.append(
                    [
                        str(clients),
                        name,
                        *(str(found[key]) for key in ("latency p50 ms", "latency p95 ms", "utterances/s")),
                        *(str(found[key]) for key in ("ping p50 ms", "ping max ms", "MB", "word error rate")),
                        f"{ratio:.2f}" if outcome is sttd else "",
                    ]
                )
    header = ["clients", "server", "p50 ms", "p95 ms", "utterances/s", "ping p50 ms", "ping max ms", "MB"]
    return table([*header, "word error rate", "p50, sttd over sample"], rows)
