"""What is a loop of Whisper's and what was really said again and again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sttd.engines.evidence import borne_out, bursts, loops, repetitions, tentative, words_spoken

RATE = 16000


def spoken(times: int, word_s: float = 0.35, gap_s: float = 0.15) -> Any:
    """Voice-like bursts over a little hiss."""
    rng = np.random.default_rng(1)
    word = np.sin(2 * np.pi * 150 * np.arange(int(word_s * RATE)) / RATE) * np.hanning(int(word_s * RATE))
    gap = np.zeros(int(gap_s * RATE))
    audio = np.concatenate([gap, *([word, gap] * times)])
    return (audio * 0.2 + rng.standard_normal(len(audio)) * 0.001).astype(np.float32)


@pytest.mark.parametrize("times", [1, 2, 3, 7, 20])
def test_each_word_is_a_burst(times: int) -> None:
    assert bursts(spoken(times)) == times


def test_silence_and_steady_noise_have_hardly_any_bursts() -> None:
    assert bursts(np.zeros(RATE, np.float32)) == 0
    assert bursts(np.zeros(0, np.float32)) == 0
    assert bursts(np.random.default_rng(1).standard_normal(5 * RATE).astype(np.float32)) <= 1


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("nine nine nine", 3),
        ("Nine, nine, nine, nine.", 4),
        ("no no no no yes no no no no no", 10),
        ("I know. I know. I know.", 3),
        ("one two three", 0),
        ("nine", 0),
        ("", 0),
    ],
)
def test_a_phrase_that_is_repeated_is_counted(text: str, times: int) -> None:
    words = text.casefold().replace(",", " ").replace(".", " ").split()
    assert repetitions(words) == times


@pytest.mark.parametrize("times", [3, 8, 20])
def test_what_is_said_again_and_again_is_no_loop(times: int) -> None:
    text = " nine" * times
    segment = SimpleNamespace(text=text, compression_ratio=5.0)
    assert borne_out(text, spoken(times))
    assert not loops(segment, spoken(times))


def test_a_loop_has_more_words_than_the_audio_has_bursts_or_time() -> None:
    segment = SimpleNamespace(text=" nine" * 20, compression_ratio=5.0)
    assert loops(segment, spoken(4))
    assert loops(segment, spoken(20, 0.05, 0.02))
    assert loops(SimpleNamespace(text=" a" * 200, compression_ratio=9.0), spoken(20))
    assert not loops(SimpleNamespace(text=" nine" * 20, compression_ratio=1.5), spoken(1))


def test_sentences_that_begin_alike_are_no_loop() -> None:
    """Half a minute of Dickens was left out, at a ratio of 2.42."""
    alike = (
        "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness"
    )
    audio = spoken(80, 0.2, 0.13)
    assert not loops(segment(alike, compression_ratio=2.42), audio)
    assert words_spoken(segment(alike, compression_ratio=2.42), audio, 0.99) == len(alike.split())
    assert loops(segment("I am going to the store to buy some milk. " * 6, compression_ratio=4.5), audio)


def test_nobody_says_the_same_fifty_times_as_dogs_bark() -> None:
    """The text's probability is near one, so no other figure tells the two apart."""
    audio = spoken(81, 0.25, 0.11)  # half a minute
    assert words_spoken(segment("What's up, " * 56, compression_ratio=26.0, avg_logprob=-0.05), audio, 0.93) == 0
    assert words_spoken(segment("nine " * 40, compression_ratio=9.0), spoken(40), 0.99) == 40


def segment(text: str, **figures: float) -> Any:
    return SimpleNamespace(
        **({"text": text, "compression_ratio": 1.0, "no_speech_prob": 0.1, "avg_logprob": -0.3} | figures)
    )


def test_a_loop_that_goes_on_after_what_was_said_is_cut_there() -> None:
    assert words_spoken(segment(" nine," * 60, compression_ratio=20.0), spoken(12), 1.0) == 12
    assert words_spoken(segment(" I know." * 60, compression_ratio=20.0), spoken(12), 1.0) == 24
    assert words_spoken(segment(" nine nine nine"), spoken(1), 1.0) == 3, "too short to be called a loop"


def test_a_loop_over_no_rhythm_is_left_out() -> None:
    hiss = np.random.default_rng(1).standard_normal(8 * RATE).astype(np.float32)
    assert words_spoken(segment(" you" * 60, compression_ratio=20.0), hiss, 1.0) == 0
    assert words_spoken(segment(" a-a-a-a" * 60, compression_ratio=20.0), spoken(2), 1.0) == 0


def test_a_text_that_the_model_doubts_twice_is_left_out() -> None:
    audio = spoken(4)
    assert words_spoken(segment(" Come on.", no_speech_prob=0.9, avg_logprob=-0.3), audio, 1.0) == 2
    assert words_spoken(segment(" Come on.", no_speech_prob=0.9, avg_logprob=-0.9), audio, 1.0) == 0


def test_a_single_word_may_be_doubted_more_and_a_sentence_less() -> None:
    doubtful = segment(" Two.", no_speech_prob=0.55, avg_logprob=-0.9)
    assert words_spoken(doubtful, spoken(2), 0.9) == 1
    assert words_spoken(doubtful, spoken(6), 0.9) == 0
    assert words_spoken(doubtful, spoken(2), 0.4) == 0, "the gate was not sure either"
    assert words_spoken(segment(" Two.", no_speech_prob=0.8, avg_logprob=-0.9), spoken(2), 0.9) == 1


def test_what_is_doubted_waits_until_it_is_final() -> None:
    assert tentative(segment(" Two.", no_speech_prob=0.5, avg_logprob=-0.8))
    assert not tentative(segment(" Two.", no_speech_prob=0.2, avg_logprob=-0.8))
    assert not tentative(segment(" It was the best of times", no_speech_prob=0.5, avg_logprob=-0.2))


def test_barks_are_no_words_though_they_come_in_rhythm() -> None:
    barks = segment(" No, no, no, no, no!", no_speech_prob=0.5, avg_logprob=-0.7)
    assert words_spoken(barks, spoken(15), 0.92) == 0
    assert words_spoken(barks, spoken(5), 0.97) == 5
    assert words_spoken(segment(" no," * 112, compression_ratio=26.0), spoken(60), 0.97) == 0


@pytest.mark.parametrize(
    "text",
    [
        " Whoo!",
        " Whoa!",
        " Yay!",
        " Mmm! Mmm! Mmm!",
        " Beep, beep!",
        " Thank you.",
        " Thank you very much!",
        " Thanks for watching!",
        " you",
        " Bye. Bye.",
        " .",
    ],
)
def test_what_whisper_writes_of_nothing_needs_better_evidence(text: str) -> None:
    audio, count = spoken(3), len(text.split())
    assert words_spoken(segment(text, no_speech_prob=0.1), audio, 0.95) == count
    assert words_spoken(segment(text, no_speech_prob=0.3), audio, 0.95) == 0
    assert words_spoken(segment(" Thank you, Peter.", no_speech_prob=0.3), audio, 0.95) == 3
