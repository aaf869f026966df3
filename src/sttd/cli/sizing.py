"""What a model makes of this machine: measured with a daemon of its own, and live streams of the sample."""

from __future__ import annotations

import math
import time
from array import array
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from trio_websocket import ConnectionClosed

from sttd.audio.format import RATE
from sttd.cli.client import PIECE_BYTES, connected, next_event
from sttd.cli.own_daemon import own_daemon
from sttd.cli.upload import Endpoint
from sttd.engines.base import sample
from sttd.errors import SttdError, first

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio_websocket import WebSocketConnection

    from sttd.cli.own_daemon import OwnDaemon

GOAL_S = 1.0
"""A final is in time if it comes so soon after the end of speech."""
PATIENCE_S = 4.0
"""A final that has not come by then never comes."""
MAX_STREAMS = 32
SAMPLE_S = 0.25
"""Between two looks at the daemon's memory."""
LOUD = 500
"""Samples of the recording beyond this are speech."""
BREATH_S = 0.5
"""Between two measurements."""
STAGGER_S = 2.0
"""The time within which the streams of a measurement begin."""


@dataclass(frozen=True, slots=True)
class Size:
    """What was measured.

    `latency_s`, by the number of live streams, is the time from the end of speech to the final of the slowest stream,
    infinite if a final did not come. `streams` is the most streams that had their finals in time.
    """

    model: str
    provider: str
    load_s: float
    times_as_fast: float
    latency_s: dict[int, float]
    streams: int
    memory_mb: float
    session_mb: float


def size(
    model: str, provider: str, options: Sequence[str], progress: Callable[[str], None], counts: Sequence[int] = ()
) -> Size:
    """Measure a model that is in the store. `options` are further ones of `sttd serve`; `counts` are the
    numbers of live streams to try, by default as many as it takes to find the most.

    Raises ModelError if it does not load, Unavailable if its provider is not installed.
    """
    speech = sample()
    progress("loading")
    started = time.monotonic()
    with own_daemon(["--provider", provider, "--model", model, *options]) as daemon:
        load_s = time.monotonic() - started
        file = Path(str(files("sttd").joinpath("sample.wav")))
        Endpoint(daemon.address).transcribe(file, {}, lambda _utterance: None)  # warms up
        started = time.monotonic()
        Endpoint(daemon.address).transcribe(file, {}, lambda _utterance: None)
        decoded_s = time.monotonic() - started
        memory_mb = daemon.memory_mb()
        grown_mb: dict[int, float] = {}

        def slowest(count: int) -> float:
            try:
                latency_s, most_mb = trio.run(_streams, daemon, speech, count)
            except BaseExceptionGroup as group:  # an interrupt
                raise first(group) from None
            grown_mb[count] = max(0.0, most_mb - memory_mb)
            return latency_s

        latency_s = _latencies(slowest, progress, counts)
    streams = max((count for count, latency in latency_s.items() if latency <= GOAL_S), default=0)
    return Size(
        model=model,
        provider=provider,
        load_s=load_s,
        times_as_fast=len(speech) / 2 / RATE / decoded_s,
        latency_s=latency_s,
        streams=streams,
        memory_mb=memory_mb,
        session_mb=grown_mb[streams or 1] / (streams or 1),
    )


def _latencies(
    slowest: Callable[[int], float], progress: Callable[[str], None], counts: Sequence[int]
) -> dict[int, float]:
    """Try numbers of streams; by default twice as many until a final is late, then the middle."""
    measured: dict[int, float] = {}

    def in_time(count: int) -> bool:
        progress(f"{count} live stream{'s' if count > 1 else ''}")
        measured[count] = slowest(count)
        time.sleep(BREATH_S)
        return measured[count] <= GOAL_S

    if counts:
        list(map(in_time, counts))
        return measured
    count = 1
    while count <= MAX_STREAMS and in_time(count):
        count *= 2
    if 4 <= count <= MAX_STREAMS:
        in_time(count * 3 // 4)
    return measured


async def _streams(daemon: OwnDaemon, speech: bytes, count: int) -> tuple[float, float]:
    """Run live streams, each a little later than the one before.

    Returns the slowest final's latency, and the most memory meanwhile in MB.
    """
    latencies: list[float] = []
    memory_mb = [0.0]
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(_stream, daemon.address, speech, STAGGER_S * number / count, latencies)
        while len(latencies) < count:
            memory_mb.append(daemon.memory_mb())
            await trio.sleep(SAMPLE_S)
    return max(latencies), max(memory_mb)


async def _stream(address: str, speech: bytes, delay_s: float, latencies: list[float]) -> None:
    await trio.sleep(delay_s)
    latency = math.inf
    try:
        async with connected(address, "", {}) as websocket, trio.open_nursery() as nursery:
            spoken = trio.current_time() + _end_of_speech(speech)
            nursery.start_soon(_speak, websocket, speech)
            with trio.move_on_at(spoken + PATIENCE_S):
                while latency is math.inf and (event := await next_event(websocket)) is not None:
                    late = trio.current_time() - spoken
                    if event.get("type") == "final" and late > 0:
                        latency = late
            nursery.cancel_scope.cancel()
    except* SttdError:
        pass  # refused, or cut: as late as can be
    latencies.append(latency)


async def _speak(websocket: WebSocketConnection, speech: bytes) -> None:
    """Send audio as a microphone does: the speech, then silence."""
    begun, sent = trio.current_time(), 0
    with suppress(ConnectionClosed):
        while True:
            piece = speech[sent : sent + PIECE_BYTES]
            sent += PIECE_BYTES
            await trio.sleep_until(begun + sent / 2 / RATE)
            await websocket.send_message(piece.ljust(PIECE_BYTES, b"\0"))


def _end_of_speech(speech: bytes) -> float:
    """Return when the last loud sample comes, in seconds."""
    samples = array("h", speech)
    return next(at for at in range(len(samples) - 1, -1, -1) if abs(samples[at]) > LOUD) / RATE
