"""From frames to utterances: the endpointer's rules, and the pipeline around it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sttd.audio.endpointer import ONSET_GAP, Begin, End, Endpointer, Mark, Pause
from sttd.audio.format import FRAME, samples
from sttd.audio.pipeline import (
    PIECE,
    Pipeline,
    Segment,
    Speech,
    SpeechPause,
    UtteranceEnd,
    UtteranceStart,
)
from sttd.config.config import EndpointConfig, SessionOptions
from tests.support import Clip, at_16k_mono

if TYPE_CHECKING:
    from random import Random

RULES = EndpointConfig(
    onset_ms=60,
    min_speech_ms=100,
    pre_roll_ms=200,
    hangover_ms=100,
    pause_ms=200,
    min_silence_ms=300,
    max_utterance_ms=4000,
)


def marks(pattern: str, config: EndpointConfig = RULES, powers: dict[int, float] | None = None) -> list[Mark]:
    """Marks with their times in frames. Input: # for a voiced frame, . for a silent one."""
    endpointer = Endpointer(config)
    found: list[Mark] = []
    for number, frame in enumerate(pattern):
        found += endpointer.step(frame == "#", (powers or {}).get(number, 1000.0 if frame == "#" else 1.0))
    assert all(isinstance(mark, Pause) or mark.at % (FRAME // 2) == 0 for mark in found)
    return [mark if isinstance(mark, Pause) else type(mark)(mark.at // FRAME) for mark in found]


def test_an_utterance_has_a_pre_roll_a_hangover_and_a_pause_before_its_end() -> None:
    found = marks("." * 40 + "#" * 10 + "." * 20)
    assert found == [Begin(30), Pause(), End(55)]


def test_times_are_exact_in_samples() -> None:
    endpointer = Endpointer(replace(RULES, pre_roll_ms=7, hangover_ms=33), at=12345)
    found = [mark for frame in "." * 40 + "#" * 10 + "." * 20 for mark in endpointer.step(frame == "#", 1.0)]
    speech = 12345 + 40 * FRAME
    assert found[0] == Begin(speech - 7 * 16)
    assert found[-1] == End(speech + 10 * FRAME + 33 * 16, settled=True)


def test_an_utterance_begins_where_speech_was_first_likely() -> None:
    endpointer = Endpointer(RULES)
    found: list[Mark] = []
    for number in range(90):
        found += endpointer.step(number >= 70, 1.0, perhaps=number >= 55)
    assert found == [Begin((55 - 10) * FRAME)]
    distant = Endpointer(RULES)
    found = [mark for number in range(90) for mark in distant.step(number >= 80, 1.0, perhaps=True)]
    assert found == [Begin((80 - 25 - 10) * FRAME)], "half a second before the onset at most"


def test_the_pre_roll_does_not_reach_into_the_utterance_before() -> None:
    found = marks("." * 40 + "#" * 10 + "." * 40 + "#" * 10, replace(RULES, pre_roll_ms=900))
    assert found[-1] == Begin(55)
    assert found[-2] == End(55)


def test_a_little_audio_is_not_left_out_between_utterances_nor_at_the_start() -> None:
    assert marks("." * 20 + "#" * 10)[0] == Begin(0)
    found = marks("." * 40 + "#" * 10 + "." * 30 + "#" * 10)
    assert found[-2:] == [End(55), Begin(55)]
    found = marks("." * 40 + "#" * 10 + "." * 60 + "#" * 10)
    assert found[-2:] == [End(55), Begin(100)]


@pytest.mark.parametrize("pattern", ["##.##.##..", "####" + "." * 20, "#.#.#.#.#.#.#.#.#.#", "##" * 1 + "." * 6 + "##"])
def test_clicks_and_what_is_too_short_begin_no_utterance(pattern: str) -> None:
    assert marks(pattern) == []


def test_an_onset_may_have_a_gap_but_not_a_long_one() -> None:
    assert marks("###..##") == [Begin(0)]
    assert marks("###" + "." * (ONSET_GAP // FRAME + 1) + "##") == []


def test_speech_that_goes_on_keeps_the_utterance_open_and_each_silence_pauses_once() -> None:
    found = marks("#" * 10 + "." * 14 + "#" + "." * 14 + "#" + "." * 15)
    assert [type(mark) for mark in found] == [Begin, Pause, Pause, Pause, End]


def test_the_longest_utterance_is_cut_at_its_quietest_place() -> None:
    powers = dict.fromkeys(range(400), 1000.0) | {150: 5.0, 151: 4.0, 152: 5.0, 20: 0.0, 180: 1.0}
    found = marks("#" * 210, powers=powers)
    assert found == [Begin(0), End(151), Begin(151)], "one quiet frame is no gap, and 20 is not near the limit"


def test_a_cut_into_silence_begins_no_utterance() -> None:
    found = marks("#" * 190 + "." * 12, replace(RULES, pause_ms=5000))
    assert [type(mark) for mark in found] == [Begin, End]
    assert isinstance(found[-1], End)
    assert 190 <= found[-1].at <= 200


def test_flush_ends_the_utterance_and_forgets_an_onset() -> None:
    endpointer = Endpointer(RULES)
    for voiced in [True] * 10 + [False] * 3:
        endpointer.step(voiced, 1.0)
    assert endpointer.flush() == [End(13 * FRAME)]
    assert endpointer.flush() == []
    for voiced in [True] * 4:
        endpointer.step(voiced, 1.0)
    endpointer.flush()
    assert endpointer.step(True, 1.0) == []


@settings(max_examples=300)
@given(
    pattern=st.lists(st.tuples(st.sampled_from("#."), st.integers(1, 60)), max_size=30),
    levels=st.randoms(use_true_random=False),
    config=st.builds(
        EndpointConfig,
        onset_ms=st.sampled_from([20, 60, 1000]),
        min_speech_ms=st.sampled_from([20, 100, 2000]),
        pre_roll_ms=st.sampled_from([0, 205, 2000]),
        hangover_ms=st.sampled_from([0, 333, 5000]),
        pause_ms=st.sampled_from([20, 200, 10000]),
        min_silence_ms=st.sampled_from([100, 500, 10000]),
        max_utterance_ms=st.sampled_from([1000, 2500, 4000]),
    ),
)
def test_utterances_are_in_order_and_what_is_sure_stays_sure(
    pattern: list[tuple[str, int]], levels: Random, config: EndpointConfig
) -> None:
    endpointer = Endpointer(config)
    ended, begun, passed_on, last_voiced = 0, 0, 0, 0
    for frame, voiced in enumerate("".join(letter * length for letter, length in pattern)):
        last_voiced = (frame + 1) * FRAME if voiced == "#" else last_voiced
        for mark in endpointer.step(voiced == "#", levels.random(), perhaps=levels.random() < 0.9):
            now = (frame + 1) * FRAME
            assert isinstance(mark, Pause) or now - mark.at <= Endpointer.reach(config)
            if isinstance(mark, Begin):
                assert mark.at >= ended
                begun = passed_on = mark.at
            elif isinstance(mark, End):
                assert max(begun, passed_on) <= mark.at <= now
                assert mark.at - begun <= samples(config.max_utterance_ms)
                ended = mark.at
            elif isinstance(mark, Pause):
                assert endpointer.sure == max(begun, now - max(0, now - last_voiced - samples(config.hangover_ms)))
        if endpointer.speaking:
            assert passed_on <= endpointer.sure <= (frame + 1) * FRAME
            assert (frame + 1) * FRAME - endpointer.sure <= Endpointer.reach(config)
            passed_on = endpointer.sure


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
            case SpeechPause():
                assert speaking
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
    assert len(utterances) >= 5
    for start, utterance in zip(starts, utterances, strict=True):
        assert pcm[2 * start :].startswith(utterance)
    ends = [start + len(utterance) // 2 for start, utterance in zip(starts, utterances, strict=True)]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False)), "nothing is said twice"
    assert starts == sorted(starts)
    assert any(isinstance(segment, SpeechPause) for segment in segments)


@pytest.mark.parametrize("gap_ms", range(300, 1501, 100))
def test_what_is_said_after_a_pause_of_any_length_is_passed_on_once(two_cities: Clip, gap_ms: int) -> None:
    """No speech lies outside the utterances, and none in two of them."""
    pcm = at_16k_mono(two_cities)
    spoken = [pcm[a * 3200 : b * 3200] for a, b in ((12, 46), (50, 62), (66, 82), (88, 103), (107, 128), (134, 148))]
    stream, places = b"", []
    for recording in spoken:
        stream += bytes(32 * gap_ms)
        places.append((len(stream) // 2, len(stream) // 2 + len(recording) // 2))
        stream += recording
    pipeline = Pipeline(SessionOptions())
    segments = pipeline.feed(stream) + pipeline.flush()
    starts = [segment.at for segment in segments if isinstance(segment, UtteranceStart)]
    passed = np.zeros(len(stream) // 2, int)
    for start, utterance in zip(starts, audio_of(segments), strict=True):
        passed[start : start + len(utterance) // 2] += 1
    assert passed.max() == 1
    samples_of = np.frombuffer(stream, np.int16).astype(float)
    for begin, end in places:
        left_out = samples_of[begin:end][passed[begin:end] == 0]
        assert np.sum(left_out**2) < 1e-3 * np.sum(samples_of[begin:end] ** 2)


def test_a_recording_without_pauses_is_cut_and_loses_nothing(two_cities: Clip) -> None:
    pcm = at_16k_mono(two_cities)
    pipeline = Pipeline(SessionOptions(max_utterance_ms=3000, min_silence_ms=10000, hangover_ms=5000))
    segments = pipeline.feed(pcm) + pipeline.flush()
    starts = [segment.at for segment in segments if isinstance(segment, UtteranceStart)]
    utterances = audio_of(segments)
    assert len(utterances) > 10
    assert all(len(utterance) <= 3 * 32000 for utterance in utterances)
    samples_of = np.frombuffer(pcm, np.int16).astype(float)
    for start, utterance, following in zip(starts, utterances, starts[1:], strict=False):
        left_out = samples_of[start + len(utterance) // 2 : following]
        assert len(left_out) == 0 or left_out.std() < samples_of.std() / 10, "only silence lies between utterances"


@settings(max_examples=25, deadline=None)
@given(data=st.data(), gate=st.booleans(), rate=st.sampled_from([16000, 44100]))
def test_segments_do_not_depend_on_how_the_stream_is_cut(
    two_cities: Clip, data: st.DataObject, gate: bool, rate: int
) -> None:
    sent = at_16k_mono(two_cities)[: 32000 * 8 + 1]
    cuts = data.draw(st.lists(st.integers(0, len(sent)), max_size=30))
    options = SessionOptions(gate=gate, sample_rate=rate)
    whole = Pipeline(options)
    expected = whole.feed(sent) + whole.flush()
    pieces = Pipeline(options)
    edges = [0, *sorted(cuts), len(sent)]
    made = [segment for start, end in pairwise(edges) for segment in pieces.feed(sent[start:end])]
    made += pieces.flush()
    if gate:
        assert made == expected
    assert audio_of(made) == audio_of(expected)


def test_streaming_recognizers_get_pieces_of_one_length(two_cities: Clip) -> None:
    pipeline = Pipeline(SessionOptions())
    segments = pipeline.feed(at_16k_mono(two_cities)) + pipeline.flush()
    pairs = [(a, b) for a, b in pairwise(segments) if isinstance(a, Speech) and isinstance(b, Speech)]
    assert len(pairs) > 100
    assert all(len(piece.pcm) == 2 * PIECE for piece, _ in pairs)


def test_pre_roll_is_audio_from_before_the_onset(two_cities: Clip) -> None:
    silence, speech = bytes(32000), at_16k_mono(two_cities)[32000 : 32000 * 3]
    starts = {}
    for pre_roll in (0, 200, 400):
        pipeline = Pipeline(SessionOptions(pre_roll_ms=pre_roll))
        starts[pre_roll] = next(s.at for s in pipeline.feed(silence + speech) if isinstance(s, UtteranceStart))
    assert starts[0] - starts[200] == starts[200] - starts[400] == samples(200)


def test_flush_ends_the_utterance_and_keeps_the_time(two_cities: Clip) -> None:
    speech = at_16k_mono(two_cities)[32000 : 32000 * 3 + 2]
    pipeline = Pipeline(SessionOptions())
    pipeline.feed(speech)
    assert [type(segment) for segment in pipeline.flush()][-1] is UtteranceEnd
    assert not pipeline.speaking
    assert pipeline.flush() == []
    assert pipeline.samples == len(speech) // 2, "exactly, though that is no whole number of frames"
    start = next(s for s in pipeline.feed(speech) if isinstance(s, UtteranceStart))
    assert len(speech) // 2 <= start.at < len(speech)


def test_many_flushes_do_not_move_the_time() -> None:
    pipeline = Pipeline(SessionOptions())
    for _ in range(100):
        pipeline.feed(b"\1\0")
        pipeline.flush()
    assert pipeline.samples == 100


@pytest.mark.parametrize("gate", [True, False])
def test_half_a_sample_before_a_flush_does_not_spoil_what_follows(two_cities: Clip, gate: bool) -> None:
    pcm = at_16k_mono(two_cities)[: 32000 * 4]
    clean, odd = (Pipeline(SessionOptions(gate=gate)) for _ in range(2))
    clean.flush()
    odd.feed(pcm[:1])
    unsettled = [odd.unsettled]
    odd.flush()
    unsettled.append(odd.unsettled)
    assert unsettled == [True, False]
    assert odd.feed(pcm) + odd.flush() == clean.feed(pcm) + clean.flush()


def test_a_cut_at_the_limit_of_speech_that_just_ended_begins_no_utterance() -> None:
    quiet = dict.fromkeys(range(185, 200), 0.0)
    found = marks("#" * 186 + "." * 40, replace(RULES, min_silence_ms=1000, hangover_ms=0, pre_roll_ms=0), quiet)
    assert [type(mark) for mark in found].count(Begin) == 1


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_one_channel_can_be_chosen(two_cities: Clip, channel: int) -> None:
    mono = np.frombuffer(at_16k_mono(two_cities), np.int16)[: 16000 * 6]
    silent = np.zeros_like(mono)
    both = np.stack([silent, mono], axis=1).tobytes()
    pipeline = Pipeline(SessionOptions(channels=2, channel=channel))
    said = audio_of(pipeline.feed(both) + pipeline.flush())
    assert bool(said) == (channel != 1)
    if channel == 2:
        alone = Pipeline(SessionOptions())
        assert said == audio_of(alone.feed(mono.tobytes()) + alone.flush())


def test_without_the_gate_everything_is_one_utterance_unless_bounded() -> None:
    data = bytes(32000 * 5 + 1)
    options = SessionOptions(gate=False, max_utterance_ms=2000)
    free = Pipeline(options, bounded=False)
    assert audio_of(free.feed(data) + free.flush()) == [data[:-1]]
    bounded = Pipeline(options)
    assert [len(part) for part in audio_of(bounded.feed(data) + bounded.flush())] == [64000, 64000, 32000]


def test_a_pause_is_silence_beyond_doubt_and_settles_the_end_until_doubt_returns() -> None:
    def run(pattern: str) -> list[Mark]:
        endpointer = Endpointer(RULES)
        found: list[Mark] = []
        for frame in pattern:
            found += endpointer.step(frame == "#", 1.0, perhaps=frame == "?")
        return found[1:]

    speech = "#" * 10
    assert run(speech + "." * 15) == [Pause(), End(15 * FRAME, settled=True)]
    assert run(speech + "?" * 5 + "." * 15) == [Pause(), End(15 * FRAME, settled=True)]
    doubtful = run(speech + "." * 11 + "?" * 34)
    assert doubtful == [Pause(), End(15 * FRAME)], "what came after the pause may have been speech"


def test_probable_speech_that_begins_no_utterance_is_told_once_and_decoded_at_a_flush(two_cities: Clip) -> None:
    pcm = at_16k_mono(two_cities)
    word = bytes(32000) + pcm[14 * 3200 : 19 * 3200] + bytes(2 * 32000)
    pipeline = Pipeline(SessionOptions(min_speech_ms=2000))
    assert pipeline.feed(word) == []
    assert pipeline.take_missed().startswith("probable speech at 1.")
    assert pipeline.take_missed() == ""
    unsettled = [pipeline.unsettled]
    segments = pipeline.flush()
    unsettled.append(pipeline.unsettled)
    assert unsettled == [True, False]
    [utterance] = audio_of(segments)
    assert pcm[14 * 3200 : 19 * 3200] in utterance
    assert all(segment.confidence < 1 for segment in segments if isinstance(segment, Speech | UtteranceEnd))
    assert pipeline.flush() == []


def test_a_stretch_without_an_utterance_is_not_decoded_for_ever_after(two_cities: Clip) -> None:
    """At the end of a day, what may have been a word in the morning is no news."""
    word = at_16k_mono(two_cities)[14 * 3200 : 19 * 3200]
    pipeline = Pipeline(SessionOptions(min_speech_ms=2000))
    assert pipeline.feed(word + bytes(11 * 32000)) == []
    assert pipeline.flush() == []


def test_silence_and_steady_noise_are_settled() -> None:
    noise = np.random.default_rng(3).normal(0, 30, 16000 * 5).astype(np.int16).tobytes()
    for pcm in (bytes(5 * 32000), noise):
        pipeline = Pipeline(SessionOptions())
        assert pipeline.feed(pcm) == []
        assert pipeline.flush() == []
