"""Buffers and the path around them: ns to append 20 ms and to read a second, us to feed the pipeline a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.corpus import FRAME, frames, hiss, sample
from bench.report import Section, machine, table
from bench.timing import ROUNDS, compare
from sttd._pcm import RingBuffer
from sttd.audio.format import RATE
from sttd.audio.pipeline import Pipeline
from sttd.config.config import SessionOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.corpus import Pcm

LENGTH = 10 * RATE  # samples that are kept
RING = "RingBuffer"


def run(*, full: bool) -> Section:  # noqa: ARG001 (nothing here is a sample of more)
    text = f"""{machine("numpy")}. Median [min-max] of {ROUNDS} rounds of processor time.

Appending 20 ms (640 bytes) to the last 10 s of a stream, ns:

{append_table()}

Reading a second of it, ns:

{read_table()}

`Pipeline.feed` of one frame of 20 ms (16 kHz, s16): conversion, gate, endpointing, buffers; us:

{feed_table()}"""
    return Section("buffers", "Buffers", text)


def append_table() -> str:
    parts = frames(hiss(LENGTH, np.random.default_rng(1)))
    timings = compare(
        {
            RING: into_ring(parts),
            "NumPy, slice of an array made before": into_slice(parts),
            "bytearray +=, front deleted": into_bytearray(parts),
            "np.concatenate, grows to 10 s": by_concatenate(parts),
        },
        units=len(parts),
    )
    rows = [[name, timing.text(), f"{timing.over(timings[RING]):.2f}"] for name, timing in timings.items()]
    return table(["buffer", "ns per append", f"over {RING}"], rows)


def into_ring(parts: list[bytes]) -> Callable[[], object]:
    append = RingBuffer(LENGTH).append
    return lambda: [append(part) for part in parts]


def into_slice(parts: list[bytes]) -> Callable[[], object]:
    """Lies in two pieces once it has wrapped."""
    store = np.zeros(LENGTH, np.int16)

    def work() -> None:
        at = 0
        for part in parts:
            store[at : at + FRAME] = np.frombuffer(part, np.int16)
            at = (at + FRAME) % LENGTH

    return work


def into_bytearray(parts: list[bytes]) -> Callable[[], object]:
    store = bytearray(2 * LENGTH)

    def work() -> None:
        for part in parts:
            store.extend(part)
            del store[: len(part)]

    return work


def by_concatenate(parts: list[bytes]) -> Callable[[], object]:
    def work() -> None:
        store = np.zeros(0, np.int16)
        for part in parts:
            store = np.concatenate([store, np.frombuffer(part, np.int16)])

    return work


def read_table() -> str:
    """The ring's end lies in the middle of its memory, so that a second of its oldest has wrapped for a plain ring."""
    ring = RingBuffer(LENGTH)
    for part in frames(hiss(LENGTH + LENGTH // 2, np.random.default_rng(1))):
        ring.append(part)
    start = ring.end - LENGTH // 2 - RATE // 2
    store = bytearray(2 * LENGTH)
    times = 1000
    contestants: dict[str, Callable[[], object]] = {
        f"{RING}.view, no copy": lambda: [ring.view(start, start + RATE) for _ in range(times)],
        f"{RING}.read, bytes": lambda: [ring.read(start, start + RATE) for _ in range(times)],
        "bytes of a bytearray's slice": lambda: [bytes(store[: 2 * RATE]) for _ in range(times)],
    }
    timings = compare(contestants, units=times)
    return table(["buffer", "ns per read"], [[name, timing.text()] for name, timing in timings.items()])


def feed_table() -> str:
    speech = sample()
    signals = {"speech": speech, "digital silence": np.zeros_like(speech)}
    timings = compare(
        {
            f"{name}, gate {'on' if gate else 'off'}": into_pipeline(pcm, gate=gate)
            for name, pcm in signals.items()
            for gate in (True, False)
        },
        units=len(speech) // FRAME,
    )
    return table(["audio", "us per frame"], [[name, timing.text(1000)] for name, timing in timings.items()])


def into_pipeline(pcm: Pcm, *, gate: bool) -> Callable[[], object]:
    pipeline, parts = Pipeline(SessionOptions(gate=gate)), frames(pcm)
    return lambda: [pipeline.feed(part) for part in parts]
