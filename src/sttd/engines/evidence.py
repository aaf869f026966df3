"""Whether a text of Whisper's was spoken, or made up from silence, noise or its own repetition.

No figure decides alone. In silence, noise and music, Whisper writes the phrases that it has read most, with little
doubt. It may doubt a single spoken word as much. So five figures are judged together: the voice gate's confidence, the
model's no-speech probability, the text's mean log probability, its repetition, and the length of the audio.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from sttd.audio.format import RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

COMPRESSION = 2.4
"""How much better than other texts a text may compress (zlib) before it counts as a loop; as in openai/whisper."""

DOUBTS = ((0.6, -0.8), (0.4, -1.1))
"""Pairs of a no-speech probability and a mean log probability. A text over the one and under the other is left out."""
DOUBTS_IF_LONG = (0.45, -0.8)
"""The same for more than LONG_S of audio: a sentence has more that the model can be sure of than a word."""
LONG_S = 2.5
DOUBTS_IF_UNSURE = ((0.5, -0.6), (0.38, -0.95))
"""The same where the gate was hardly sure, under UNSURE."""
UNSURE = 0.7
DOUBTS_OF_WORDS = ((0.45, -1.0), (0.4, -1.15))
"""Instead of DOUBTS for up to WORD_S of audio that the gate was sure of, over SURE: one word is always doubtful."""
WORD_S, SURE = 1.6, 0.85
DOUBTS_IF_REPEATED = (0.45, -0.62)
"""The same for a phrase said three times and more, where the gate was not as sure as of voices, over SURE_OF_REPEATED:
dogs bark in rhythm too."""
SURE_OF_REPEATED = 0.94

DOUBTS_OF_PARTIALS = (0.35, -0.6)
"""What is doubted more than that is not shown before it is final: a partial that is taken back is a mistake seen."""

STOCK = re.compile(
    r"(thank you|thanks|thanks for watching|thank you for watching|you)( so much| very much)?|bye( bye)*|"
    r"(wh?o+a?h?|hoo+|ya+y|hu+h|m+|beep)( (wh?o+a?h?|hoo+|ya+y|hu+h|m+|beep))*|"
)
"""What Whisper writes most where nothing was said, or somebody sneezed, cried or pressed a key. It needs a no-speech
probability of less than STOCK_NO_SPEECH."""
STOCK_NO_SPEECH = 0.18

STEP, SMOOTH = RATE // 100, 5
DIP = 0.5
"""Share of a burst's level to which the level falls between it and the next."""
FASTEST_S = 0.15
"""No word is repeated faster than this."""
MOST_REPEATED = 0.75
"""Share of the repetitions in a text that must be heard as bursts."""
LEAST_REPEATED, MOST_HEARD = 3, 40
"""Bursts that a loop must have been heard in to be cut to them rather than left out; nobody says a word so often."""


def words_spoken(segment: Any, audio: NDArray[np.float32], confidence: float) -> int:
    """How many words, as they are parted by spaces, of a segment's text were spoken: all, none, or the first ones.

    `segment` is faster_whisper's, found in `audio`; `confidence` is the gate's (see Engine.transcribe). Where somebody
    says the same again and again, the model may go on after that; then the words that the audio bears out are left.
    """
    if _doubted(segment, len(audio) / RATE, confidence):
        return 0
    words = segment.text.split()
    if not loops(segment, audio):
        return len(words)
    times, heard = repetitions(bare(segment.text)), bursts(audio)
    return heard * len(words) // times if LEAST_REPEATED <= heard <= min(times, MOST_HEARD) else 0


def tentative(segment: Any) -> bool:
    """Whether a text that was found in an utterance so far had better wait until it is final."""
    over, under = DOUBTS_OF_PARTIALS
    return bool(segment.no_speech_prob > over and segment.avg_logprob < under)


def _doubted(segment: Any, length_s: float, confidence: float) -> bool:
    words = bare(segment.text)
    if STOCK.fullmatch(" ".join(words)) and segment.no_speech_prob > STOCK_NO_SPEECH:
        return True
    doubts: tuple[tuple[float, float], ...] = DOUBTS_OF_WORDS if length_s <= WORD_S and confidence > SURE else DOUBTS
    if length_s > LONG_S:
        doubts = (*doubts, DOUBTS_IF_LONG)
    if confidence < SURE_OF_REPEATED and repetitions(words) >= LEAST_REPEATED:
        doubts = (*doubts, DOUBTS_IF_REPEATED)
    if confidence < UNSURE:
        doubts = (*doubts, *DOUBTS_IF_UNSURE)
    return any(segment.no_speech_prob > over and segment.avg_logprob < under for over, under in doubts)


def loops(segment: Any, audio: NDArray[np.float32]) -> bool:
    """Whether a text repeats itself more often than the audio bears out."""
    return bool(segment.compression_ratio > COMPRESSION) and not borne_out(segment.text, audio)


def borne_out(text: str, audio: NDArray[np.float32]) -> bool:
    """Whether a word or phrase that is said again and again can have been: there is time for it, and the level of the
    audio rises as often."""
    words = bare(text)
    times = repetitions(words)
    if times < 2 or len(words) * FASTEST_S > len(audio) / RATE:
        return False
    return bursts(audio) >= MOST_REPEATED * times


def bare(text: str) -> list[str]:
    """Words without case and punctuation."""
    return re.findall(r"\w+", text.casefold())


def repetitions(words: Sequence[str]) -> int:
    """How often a phrase of one to four words comes, if a text is hardly more than that phrase; else 0."""
    for size in range(1, 5):
        phrase = words[:size]
        times = len(words) // size
        same = sum(list(words[at : at + size]) == list(phrase) for at in range(0, times * size, size))
        if times >= 2 and same >= 0.8 * times:
            return times
    return 0


def bursts(audio: NDArray[np.float32]) -> int:
    """How often the level of the audio rises: syllables, barks, beats."""
    count = len(audio) // STEP
    if not count:
        return 0
    power = np.square(audio[: count * STEP], dtype=np.float32).reshape(count, STEP).mean(axis=1)
    level = np.sqrt(np.convolve(power, np.ones(SMOOTH) / SMOOTH, "same"))
    floor = 0.1 * float(level.max())
    found, rising, extreme = 0, True, 0.0
    for value in level:
        if rising:
            extreme = max(extreme, value)
            if value < DIP * extreme:
                found += extreme > floor
                rising, extreme = False, value
        else:
            extreme = min(extreme, value)
            if DIP * value > extreme:
                rising, extreme = True, value
    return found + (rising and extreme > floor)
