"""From frames to utterances: the endpointer's rules, and the pipeline around it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sttd.audio.endpointer import Endpointer, Step
from sttd.audio.pipeline import PIECE_BYTES, Pipeline, Segment, Speech, UtteranceEnd, UtteranceStart, arrival_pause
from sttd.audio.vad import FRAME_BYTES
from sttd.config import EndpointConfig, SessionOptions
from tests.support import Clip, at_16k_mono

RULES = EndpointConfig(onset_ms=60, hangover_ms=100, min_silence_ms=300, max_utterance_ms=4000)


def steps(pattern: str, config: EndpointConfig = RULES) -> str:
    """One letter a frame: w(ait), o(pen), p(ass), h(old), c(lose), x for a cut. Input: # voiced, . silent."""
    endpointer = Endpointer(config)
    letters = {Step.WAIT: "w", Step.OPEN: "o", Step.PASS: "p", Step.HOLD: "h", Step.CLOSE: "c", Step.CUT: "x"}
    return "".join(letters[endpointer.step(frame == "#")] for frame in pattern)


def test_onset_hangover_and_end() -> None:
    assert steps("..###" + "#" * 5 + "." * 17) == "wwwwo" + "ppppp" + "ppppp" + "hhhhhhhhh" + "c" + "ww"


def test_a_click_is_no_onset() -> None:
    assert steps("##.##.#..") == "w" * 9


def test_speech_that_goes_on_keeps_the_utterance_open() -> None:
    assert steps("###" + "." * 14 + "#" + "." * 15) == "wwo" + "p" * 5 + "h" * 9 + "p" + "p" * 5 + "h" * 9 + "c"


def test_the_longest_utterance_is_cut_and_another_follows_at_once() -> None:
    letters = steps("#" * 450)
    assert letters.count("x") == 2
    first = letters.index("x")
    assert letters[first + 1] == "o"
    assert first + 1 == 200, "four seconds are two hundred frames"
    assert set(letters[3:first]) == {"p"}


def test_near_its_limit_an_utterance_ends_at_a_shorter_silence() -> None:
    assert "c" not in steps("#" * 100 + "." * 10 + "#" * 20)
    assert "c" in steps("#" * 180 + "." * 4 + "#" * 20)


@given(st.text("#.", max_size=600))
def test_every_frame_is_accounted_for(pattern: str) -> None:
    letters = steps(pattern)
    speaking = False
    for letter in letters:
        assert (letter in "phcx") == speaking, letters
        speaking = letter == "o" or (speaking and letter not in "cx")


def audio_of(segments: list[Segment]) -> list[bytes]:
    """Each utterance's audio; fails where segments come in a wrong order."""
    utterances: list[bytes] = []
    speaking = False
    for segment in segments:
        match segment:
            case UtteranceStart():
                assert not speaking
                utterances.append(b"")
                speaking = True
            case Speech(pcm):
                assert speaking
                utterances[-1] += pcm
            case UtteranceEnd():
                assert speaking
                speaking = False
    assert not speaking
    return utterances


def test_utterances_are_stretches_of_the_recording(two_cities: Clip) -> None:
    pcm = at_16k_mono(two_cities)
    pipeline = Pipeline(SessionOptions())
    segments = pipeline.feed(pcm) + pipeline.flush()
    starts = [segment.at for segment in segments if isinstance(segment, UtteranceStart)]
    utterances = audio_of(segments)
    assert len(utterances) > 5
    for start, utterance in zip(starts, utterances, strict=True):
        # The last frame may be filled up with zeros.
        assert pcm[2 * start :].startswith(utterance[: len(pcm) - 2 * start])
    ends = [start + len(utterance) // 2 for start, utterance in zip(starts, utterances, strict=True)]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False)), "nothing is said twice"
    assert starts == sorted(starts)


@cache
def _speech_like() -> bytes:
    chance = np.random.default_rng(11)
    parts = [np.zeros(4000)]
    for _number in range(6):
        parts += [
            chance.normal(0, 4000, int(chance.integers(2000, 12000))),
            np.zeros(int(chance.integers(3000, 15000))),
        ]
    return np.concatenate(parts).astype(np.int16).tobytes()


@settings(max_examples=50, deadline=None)
@given(cuts=st.lists(st.integers(0, 200_000), max_size=30), gate=st.booleans(), rate=st.sampled_from([16000, 44100]))
def test_segments_do_not_depend_on_how_the_stream_is_cut(cuts: list[int], gate: bool, rate: int) -> None:
    data = _speech_like()
    options = SessionOptions(gate=gate, sample_rate=rate)
    whole = Pipeline(options)
    expected = whole.feed(data) + whole.flush()
    pieces = Pipeline(options)
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    made = [segment for start, end in pairwise(edges) for segment in pieces.feed(data[start:end])]
    made += pieces.flush()
    if gate:
        assert made == expected
    assert audio_of(made) == audio_of(expected)


def test_streaming_recognizers_get_pieces_of_one_length() -> None:
    pipeline = Pipeline(SessionOptions())
    segments = pipeline.feed(_speech_like()) + pipeline.flush()
    for segment, following in pairwise(segments):
        if isinstance(segment, Speech) and isinstance(following, Speech):
            assert len(segment.pcm) == PIECE_BYTES


def test_pre_roll_is_audio_from_before_the_onset() -> None:
    tone = (8000 * np.sin(np.arange(16000) / 5)).astype(np.int16).tobytes()
    for pre_roll in (0, 200, 400):
        pipeline = Pipeline(SessionOptions(pre_roll_ms=pre_roll))
        start = next(s for s in pipeline.feed(bytes(32000) + tone) if isinstance(s, UtteranceStart))
        assert start.at == 16000 - pre_roll * 16


def test_flush_ends_the_utterance_and_keeps_the_time() -> None:
    tone = (8000 * np.sin(np.arange(16000) / 5)).astype(np.int16).tobytes()
    pipeline = Pipeline(SessionOptions())
    pipeline.feed(tone)
    assert [type(segment) for segment in pipeline.flush()][-1] is UtteranceEnd
    assert not pipeline.speaking
    assert pipeline.flush() == []
    start = next(s for s in pipeline.feed(tone) if isinstance(s, UtteranceStart))
    assert 16000 <= start.at < 16000 + 3 * FRAME_BYTES


def test_without_the_gate_everything_is_one_utterance_unless_bounded() -> None:
    data = bytes(32000 * 5 + 1)
    options = SessionOptions(gate=False, max_utterance_ms=2000)
    free = Pipeline(options, bounded=False)
    assert audio_of(free.feed(data) + free.flush()) == [data[:-1]]
    bounded = Pipeline(options)
    assert [len(part) for part in audio_of(bounded.feed(data) + bounded.flush())] == [64000, 64000, 32000]


@pytest.mark.parametrize(
    ("duration", "gap", "pause"),
    [
        (0.02, 0.02, 1.0),
        (0.25, 0.0, 1.0),
        (1.0, 1e9, 1.3),  # the first message: perhaps of a stream
        (5.0, 1e9, 0.5),  # a recording
        (5.0, 0.0, 0.5),  # recordings one after another
        (1.0, 1.05, 2.0),  # a live stream of long messages
    ],
)
def test_patience_with_a_client_depends_on_how_it_sends(duration: float, gap: float, pause: float) -> None:
    assert arrival_pause(replace(SessionOptions(), arrival_pause_ms=1000), duration, gap) == pause
