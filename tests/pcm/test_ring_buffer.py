"""The ring buffer: the newest samples by their number, in one piece, without copying."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sttd._pcm import RingBuffer


@given(
    capacity=st.integers(1, 50),
    appended=st.lists(st.lists(st.integers(-32768, 32767), max_size=120), max_size=12),
    data=st.data(),
)
def test_ring_buffer_keeps_the_newest(capacity: int, appended: list[list[int]], data: st.DataObject) -> None:
    ring = RingBuffer(capacity)
    everything: list[int] = []
    oldest = 0
    for samples in appended:
        ring.append(np.array(samples, np.int16).tobytes())
        everything += samples
        oldest = max(oldest, len(everything) - capacity)
        assert (ring.start, ring.end) == (oldest, len(everything))
        start = data.draw(st.integers(ring.start, ring.end))
        stop = data.draw(st.integers(start, ring.end))
        assert np.frombuffer(ring.read(start, stop), np.int16).tolist() == everything[start:stop]
        assert ring.view(start, stop).tolist() == everything[start:stop]


def test_ring_buffer_is_read_without_copying() -> None:
    ring = RingBuffer(100)
    ring.append(bytes(150 * 2))
    assert ring.view(60, 140).format == "h"
    view = np.asarray(ring.view(60, 140))
    assert not view.any()
    ring.append(b"\1\0" * 10)  # takes the place of samples 50 to 60: the view still holds
    assert not view.any()
    ring.append(b"\1\0" * 10)
    assert view[:10].all(), "a view shows the buffer's memory itself"
    assert not view[10:].any()
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1


def test_a_view_keeps_the_ring_buffers_memory() -> None:
    ring = RingBuffer(1000)
    ring.append(b"\1\2" * 1000)
    view = ring.view(0, 1000)
    del ring
    assert view.tobytes() == b"\1\2" * 1000


def test_ring_buffer_does_not_hold_on_to_what_it_was_given() -> None:
    data = bytearray(b"\1\2" * 10)
    ring = RingBuffer(20)
    ring.append(data)
    data.clear()  # raises BufferError while somebody has a view of it
    assert ring.read(0, 10) == b"\1\2" * 10


def test_ring_buffer_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="positive"):
        RingBuffer(0)
    ring = RingBuffer(5)
    with pytest.raises(ValueError, match="16-bit"):
        ring.append(b"abc")
    ring.append(bytes(20))
    for start, stop in ((4, 6), (6, 11), (8, 7), (-1, 6)):
        with pytest.raises(IndexError, match="not kept: there are 5 to 10"):
            ring.view(start, stop)


@pytest.mark.parametrize("capacity", [7, 10, 100])
def test_a_ring_buffer_can_be_fed_its_own_samples(capacity: int) -> None:
    ring = RingBuffer(capacity)
    ring.append(np.arange(10, dtype=np.int16).tobytes())
    kept = ring.read(ring.start, ring.end)
    ring.append(ring.view(ring.start, ring.end))
    assert ring.read(ring.end - len(kept) // 2, ring.end) == kept


def test_a_ring_buffer_takes_samples_at_odd_addresses() -> None:
    ring = RingBuffer(100)
    ring.append(memoryview(b"?\1\2\3\4")[1:])
    assert ring.read(0, 2) == b"\1\2\3\4"
