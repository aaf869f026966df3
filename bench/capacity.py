"""How many live streams a machine carries, and how fast recordings go through that nobody waits for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench import servers
from bench.latency import options
from bench.load import drive, turns
from bench.report import Section, machine, or_missing, table
from sttd.config.config import SessionOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.load import Turn

STREAMS = (4, 8, 12, 16, 20, 24, 28, 32)
LATE_S = 1.0
CLIENTS = (1, 4)


def run(*, full: bool) -> Section:
    seconds = 40.0 if full else 15.0
    english, korean = turns("en", 2, 5), turns("ko", 2, 6)
    providers = {"vosk, Korean small model": ("vosk", korean), "tiny.en": ("faster_whisper", english)}
    text = f"""{machine("faster-whisper", "ctranslate2", "vosk")}.

Live streams of 20 ms messages, as in the section on latency: speech most of the time, so more than people talk. More
and more of them until a twentieth of the finals comes more than {LATE_S:g} s after the silence that ends an utterance.

{or_missing(lambda: live(providers, seconds))}

As fast as possible: clients that send one recording after the other, each in one message, and ask for the text.

{or_missing(lambda: throughput(english, korean))}"""
    return Section("capacity", "How many streams, and how fast", text)


def live(providers: Mapping[str, tuple[str, Sequence[Turn]]], seconds: float) -> str:
    rows = []
    silence = SessionOptions().min_silence_ms / 1000
    for name, (provider, work) in providers.items():
        with servers.sttd("--provider", provider, STTD_LIMITS__LAG_S="60") as server:
            drive(options("json", server, 4, 5), work)
            for number in STREAMS:
                found = drive(options("json", server, number, seconds, piece_ms=20), work).summary()
                columns = ("latency p50 ms", "latency p95 ms", "ping p50 ms", "ping p99 ms", "cores", "MB")
                rows.append([name, *(str(found[key]) for key in ("streams", "without text", *columns))])
                if found["latency p95 ms"] is None or found["latency p95 ms"] > 1000 * (LATE_S + silence):
                    break
    header = ["model", "streams", "without text", "p50 ms", "p95 ms", "ping p50 ms", "ping p99 ms", "cores", "MB"]
    return table(header, rows)


def throughput(english: Sequence[Turn], korean: Sequence[Turn]) -> str:
    rows = []
    for clients in CLIENTS:
        with servers.sttd("--provider", "vosk") as server:
            rows.append(["sttd, vosk", *speed("json", server, clients, korean, flush=True)])
        with servers.sttd("--provider", "faster_whisper") as server:
            rows.append(["sttd, tiny.en", *speed("json", server, clients, english, flush=True)])
        with servers.fastapi_sample(Path(servers.store()) / "faster_whisper/tiny.en") as server:
            rows.append(["FastAPI sample, tiny.en", *speed("plain", server, clients, english)])
    return table(["server", "clients", "seconds of audio a second"], rows)


def speed(
    protocol: str, server: servers.Server, clients: int, work: Sequence[Turn], *, flush: bool = False
) -> list[str]:
    settings = options(protocol, server, clients, 0, whole=True, once=True, flush=flush)
    drive(settings, work[:: len(work) // 8])
    outcome = drive(settings, work)
    return [str(clients), f"{outcome.sent_s / outcome.wall_s:.1f}"]
