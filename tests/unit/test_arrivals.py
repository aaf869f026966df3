"""How long sttd waits for more audio, from how the audio came."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sttd.audio.arrivals import Arrivals
from sttd.config.config import SessionOptions

OPTIONS = replace(SessionOptions(), arrival_pause_ms=1000)


def after(*messages: tuple[float, float]) -> Arrivals:
    """Messages as (seconds of audio, seconds since the one before)."""
    arrivals, now = Arrivals(100.0), 100.0
    for duration, gap in messages:
        now += gap
        arrivals.came(duration, now)
    return arrivals


@pytest.mark.parametrize(
    ("messages", "silent", "speaking"),
    [
        ([(0.02, 0.02)] * 3, 1.0, 2.5),
        ([(0.25, 0.0)], 1.0, 1.0),
        ([(0.25, 0.0)] * 20, 1.0, 1.0),
        ([(0.1, 0.1)] * 5 + [(0.1, 2.0)] + [(0.1, 0.0)] * 19 + [(0.1, 0.1)], 1.0, 2.5),
        ([(0.1, 0.1)] * 5 + [(0.8, 4.0)], 1.04, 1.04),
        ([(1.0, 1e9)], 1.3, 1.3),
        ([(1.0, 1.0), (1.0, 1.05)], 2.0, 2.5),
        ([(5.0, 1e9)], 0.5, 0.5),
        ([(5.0, 9.0), (5.0, 0.0)], 0.5, 0.5),
        ([(2.0, 2.1)], 0.5, 3.65),
        ([(2.0, 9.0), (2.0, 2.0)], 3.65, 3.65),
    ],
    ids=[
        "a live stream",
        "one short message",
        "faster than it is spoken",
        "a live stream after a stall",
        "one message, long after a live stream",
        "perhaps the first message of a stream",
        "a live stream of long messages",
        "a recording",
        "recordings one after another",
        "recorded since the connection came, or live in long messages",
        "live in long messages",
    ],
)
def test_patience_depends_on_how_a_client_sends(
    messages: list[tuple[float, float]], silent: float, speaking: float
) -> None:
    arrivals = after(*messages)
    assert arrivals.patience(OPTIONS) == pytest.approx(silent)
    assert arrivals.patience(OPTIONS, speaking=True) == pytest.approx(speaking)
    assert arrivals.patience(replace(OPTIONS, arrival_pause_ms=0), speaking=True) == math.inf


def test_a_message_is_a_recording_unless_messages_come_as_fast_as_they_are_spoken() -> None:
    assert after((3.0, 0.0)).recording(speaking=True)
    assert after((3.0, 3.0)).recording()
    assert not after((3.0, 3.0)).recording(speaking=True)
    assert not after((3.0, 50.0), (3.0, 3.1)).recording()
    assert not after((1.0, 50.0)).recording()
