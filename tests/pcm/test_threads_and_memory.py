"""The compiled kernels beside the interpreter: threads go on while they run, and nothing is leaked."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sttd._pcm import RingBuffer
from sttd.audio.format import converter
from tests.support import NATIVE_CHECK

if TYPE_CHECKING:
    from collections.abc import Callable

MEGABYTE = 1 << 20


def longest_stop(call: Callable[[], object]) -> tuple[float, float]:
    """How long `call` takes in a thread, and the longest time for which this thread could not go on meanwhile."""
    thread = threading.Thread(target=call)
    longest, last = 0.0, time.perf_counter()
    started = last
    thread.start()
    while thread.is_alive():
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    return time.perf_counter() - started, longest


@pytest.mark.skipif(NATIVE_CHECK == "cover", reason="tracing lines takes the interpreter's lock")
@pytest.mark.skipif(
    NATIVE_CHECK in ("valgrind", "arm64"), reason="valgrind and qemu run one thread at a time, or slowly"
)
@pytest.mark.parametrize("into_ring", [False, True])
def test_other_threads_go_on_during_a_long_conversion(into_ring: bool) -> None:
    stream = converter(192000, "pcm_f32le", 8)
    ring = RingBuffer(1000)
    once, _ = longest_stop(lambda: stream.feed(bytes(MEGABYTE)))
    data = bytes(min(400, int(0.5 / once) + 1) * MEGABYTE)
    took, stopped = longest_stop(lambda: stream.feed_into(data, ring) if into_ring else stream.feed(data))
    assert stopped < took / 3, f"held up for {stopped:.3f} of {took:.3f} s"


@pytest.mark.skipif(NATIVE_CHECK != "", reason="memory is counted in a normal build: other builds keep what was freed")
@pytest.mark.parametrize("what", ["converters", "gates and ring buffers", "calls", "errors"])
def test_memory_does_not_grow(what: str) -> None:
    program = textwrap.dedent("""
        import gc, os, sys
        from sttd._pcm import Converter, RingBuffer
        from sttd._resampler import FilterBank
        from sttd._vad import VoiceGate
        from sttd.audio.format import converter

        stream, gate, ring, frame = converter(44100, "pcm_s16le", 2), VoiceGate(), RingBuffer(5000), bytes(640)

        def converters():
            made = Converter("pcm_f32le", 2, FilterBank(48000, 16000))
            made.feed(bytes(9999))
            made.flush()

        def gates_and_ring_buffers():
            VoiceGate().is_speech(frame)
            buffer = RingBuffer(20000)
            buffer.append(frame)
            view = buffer.view(0, 100)

        def calls():
            stream.feed(bytes(7777)), stream.feed_into(bytes(777), ring), stream.levels()
            ring.append(frame), ring.read(ring.end - 10, ring.end), ring.view(ring.end - 10, ring.end)
            gate.is_speech(frame), gate.features(frame)

        def errors():
            for call in (
                lambda: stream.feed("text"), lambda: gate.is_speech(b"?"), lambda: ring.view(9, 8),
                lambda: ring.append(b"?"), lambda: Converter("mp3", 1, FilterBank(16000, 16000)),
                lambda: FilterBank(191999, 16000),
            ):
                try:
                    call()
                except (TypeError, ValueError, IndexError):
                    continue
                raise AssertionError

        def resident():
            gc.collect()
            return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")

        run = {"converters": converters, "gates and ring buffers": gates_and_ring_buffers, "calls": calls,
               "errors": errors}[sys.argv[1]]
        for _ in range(300):
            run()
        before = resident()
        for _ in range(30000 if run is not converters else 3000):
            run()
        print(resident() - before)
    """)
    done = subprocess.run([sys.executable, "-c", program, what], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # One leaked object a turn, even the smallest, would be a megabyte; a converter a hundred.
    assert int(done.stdout) < MEGABYTE // 4


def test_a_message_is_not_held_on_to() -> None:
    for feed in (converter(48000, "pcm_s16le", 1).feed, RingBuffer(100).append):
        message = bytearray(np.arange(500, dtype=np.int16).tobytes())
        feed(message)
        message.clear()  # raises BufferError while somebody has a view of it
