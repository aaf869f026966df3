"""Utterances that follow each other at gaps from 0.3 to 1.5 s: no word is lost between them, and none is said twice."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import jiwer
import pytest

from tests.reliability.figures import figure
from tests.support import Clip, Daemon, at_16k_mono, finals, json_events, normalized, shared_clips, trimmed

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(1200)]
GAPS_MS = range(300, 1501, 100)
APART_MS = 3000
ENGLISH, KOREAN = 8, 8


def texts(daemon: Daemon, pcm: bytes) -> list[str]:
    with daemon.json(partials=0) as client:
        return finals(json_events(client, pcm))


def lost_and_doubled(wanted: Sequence[str], found: Sequence[str]) -> tuple[int, int]:
    """Words that are missing, and words too many."""
    words = jiwer.process_words(normalized(" ".join(wanted)), normalized(" ".join(found)))
    return words.deletions, words.insertions


def said_twice(found: Sequence[str]) -> int:
    """Finals that begin with the word that the one before ended with."""
    words = [normalized(text).split() for text in found]
    return sum(bool(a and b) and a[-1] == b[0] for a, b in pairwise(words))


@pytest.mark.parametrize("provider", ["whisper", "vosk"])
def test_no_word_is_lost_or_doubled_between_utterances(
    provider: str, request: pytest.FixtureRequest, korean: list[Clip]
) -> None:
    daemon: Daemon = request.getfixturevalue(provider)
    if provider == "vosk":
        clips = korean[:KOREAN]
    else:
        clips = [clip for clip in shared_clips("en/ls-") if len(clip.samples) < 8 * clip.rate][:ENGLISH]
        if not clips:
            pytest.skip("../shared/speech is missing")
    recordings = [trimmed(at_16k_mono(clip)) for clip in clips]
    # Far from each other on one stream: a recognizer's text depends a little on where an utterance's first frame lies.
    apart = texts(daemon, bytes(32 * APART_MS).join(recordings))
    lost = doubled = twice = words = 0
    rows = []
    for gap in GAPS_MS:
        found = texts(daemon, bytes(32 * gap).join(recordings))
        missing, added = lost_and_doubled(apart, found)
        rows.append(f"{gap} ms: {missing} lost, {added} too many, {said_twice(found)} at a seam")
        lost, doubled, twice = lost + missing, doubled + added, twice + said_twice(found)
        words += len(normalized(" ".join(apart)).split())
    figure(f"gaps, {provider}", f"{lost} of {words} words lost, {doubled} too many; {'; '.join(rows)}")
    share = {"whisper": 0.01, "vosk": 0.05}[provider]  # a small Vosk model is moved by how much silence comes before
    assert lost <= share * words
    assert doubled <= share * words
    assert twice == 0
