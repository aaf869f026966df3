"""Judge whether a text of Whisper was spoken, or made up from silence, noise or repetition.

No figure decides alone. From silence, noise and music Whisper writes the most frequent phrases of its training data,
with little doubt; a single spoken word may be as doubtful. So five figures are judged together: the voice gate's
confidence, the model's no-speech probability, the text's mean log probability, its repetitions, and the length of the
audio.
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
"""Maximum compression ratio (zlib) of a text; above it the text counts as a loop. The value is openai/whisper's."""

COMPRESSION_OF_SENTENCES = 3.0
"""The same where no phrase of a few words is repeated. `It was the best of times, it was the worst of times`, and so on
for half a minute, has 2.4; a sentence that is repeated without end has more than 4."""

DOUBTS = ((0.6, -0.8), (0.4, -1.1))
"""Pairs of a no-speech probability and a mean log probability. A text is left out if, for any pair, it is above the
first value and below the second."""
DOUBTS_IF_LONG = (0.45, -0.8)
"""An additional pair for more than LONG_S of audio: the model is surer of a spoken sentence than of a word."""
LONG_S = 2.5
DOUBTS_IF_UNSURE = ((0.5, -0.6), (0.38, -0.95))
"""Additional pairs for a gate's confidence under UNSURE."""
UNSURE = 0.7
DOUBTS_OF_WORDS = ((0.45, -1.0), (0.4, -1.15))
"""Pairs that replace DOUBTS for up to WORD_S of audio with a gate's confidence over SURE: a single word is always
doubtful."""
WORD_S, SURE = 1.6, 0.85
DOUBTS_IF_REPEATED = (0.45, -0.62)
"""An additional pair for a phrase of MIN_REPEATED repetitions with a gate's confidence under SURE_OF_REPEATED, which
voices exceed: dogs bark in rhythm too."""
SURE_OF_REPEATED = 0.94

DOUBTS_OF_PARTIALS = (0.35, -0.6)
"""A pair for partials: a doubtful text is not shown before it is final, since users see a partial that is withdrawn as
a mistake."""

STOCK = re.compile(
    r"(thank you|thanks|thanks for watching|thank you for watching|you)( so much| very much)?|bye( bye)*|"
    r"(wh?o+a?h?|hoo+|ya+y|hu+h|m+|beep)( (wh?o+a?h?|hoo+|ya+y|hu+h|m+|beep))*|"
)
"""Texts that Whisper writes most often if nobody spoke, or somebody sneezed, cried or pressed a key. They are left out
above a no-speech probability of STOCK_NO_SPEECH."""
STOCK_NO_SPEECH = 0.18

STEP, SMOOTH = RATE // 100, 5
DIP = 0.5
"""Between two bursts the level falls below this share of the first one's."""
FASTEST_S = 0.15
"""Minimum duration of a repeated word."""
MIN_HEARD_SHARE = 0.75
"""Minimum number of bursts in the audio, as a share of the repetitions in the text."""
MIN_REPEATED, MAX_HEARD = 3, 40
"""A loop is cut to the number of bursts in the audio if that is in this range, else left out. Nobody repeats a word
more often."""


def words_spoken(segment: Any, audio: NDArray[np.float32], confidence: float) -> int:
    """Return how many of the first words of a segment's text were spoken: all, none, or some.

    Words are separated by spaces. `segment` is faster_whisper's, found in `audio` (floats, 16 kHz); `confidence` is the
    gate's (see BatchEngine.transcribe). If somebody repeats a word, the model may continue the repetition after the
    speech has ended; then only the words that the audio supports count.
    """
    if _doubted(segment, len(audio) / RATE, confidence):
        return 0
    words = segment.text.split()
    if not loops(segment, audio):
        return len(words)
    times, heard = repetitions(bare(segment.text)), bursts(audio)
    return heard * len(words) // times if MIN_REPEATED <= heard <= min(times, MAX_HEARD) else 0


def tentative(segment: Any) -> bool:
    """Return whether a segment's text is too doubtful for a partial."""
    over, under = DOUBTS_OF_PARTIALS
    return bool(segment.no_speech_prob > over and segment.avg_logprob < under)


def _doubted(segment: Any, length_s: float, confidence: float) -> bool:
    words = bare(segment.text)
    if STOCK.fullmatch(" ".join(words)) and segment.no_speech_prob > STOCK_NO_SPEECH:
        return True
    doubts: tuple[tuple[float, float], ...] = DOUBTS_OF_WORDS if length_s <= WORD_S and confidence > SURE else DOUBTS
    if length_s > LONG_S:
        doubts = (*doubts, DOUBTS_IF_LONG)
    if confidence < SURE_OF_REPEATED and repetitions(words) >= MIN_REPEATED:
        doubts = (*doubts, DOUBTS_IF_REPEATED)
    if confidence < UNSURE:
        doubts = (*doubts, *DOUBTS_IF_UNSURE)
    return any(segment.no_speech_prob > over and segment.avg_logprob < under for over, under in doubts)


def loops(segment: Any, audio: NDArray[np.float32]) -> bool:
    """Return whether a segment's text repeats itself more often than the audio supports."""
    if segment.compression_ratio <= COMPRESSION:
        return False
    if repetitions(bare(segment.text)) < 2:
        return bool(segment.compression_ratio > COMPRESSION_OF_SENTENCES)
    return not borne_out(segment.text, audio)


def borne_out(text: str, audio: NDArray[np.float32]) -> bool:
    """Return whether a text's repetitions can have been spoken: there is time, and the audio has enough bursts."""
    words = bare(text)
    times = repetitions(words)
    if not 2 <= times <= MAX_HEARD or len(words) * FASTEST_S > len(audio) / RATE:
        return False
    return bursts(audio) >= MIN_HEARD_SHARE * times


def bare(text: str) -> list[str]:
    """Return the words of a text without case and punctuation."""
    return re.findall(r"\w+", text.casefold())


def repetitions(words: Sequence[str]) -> int:
    """Return how often a phrase of one to four words is repeated if the text is little else, otherwise 0."""
    for size in range(1, 5):
        phrase = words[:size]
        times = len(words) // size
        same = sum(list(words[at : at + size]) == list(phrase) for at in range(0, times * size, size))
        if times >= 2 and same >= 0.8 * times:
            return times
    return 0


def bursts(audio: NDArray[np.float32]) -> int:
    """Return how often the level of the audio (floats, 16 kHz) rises: syllables, barks, beats."""
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
