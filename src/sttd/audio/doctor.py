"""What is wrong with a client's audio, said before its user wonders why the text is nonsense.

Levels, clipping and gaps are counted by the converter as it goes; the guesses about a wrong format look at a few
seconds of the bytes as they came.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sttd.audio.format import RATE, bytes_per_second

if TYPE_CHECKING:
    from sttd._pcm import Converter
    from sttd.config import SessionOptions

LOOK_S = 3
LOOKS = 5
"""A guess is made for each of the first so many times LOOK_S seconds that are not silent."""

MOST_FULL, MOST_OFFSET = 0.002, 0.02
"""Shares of full scale: of samples that reach it, and of the mean's distance from zero."""

CONTAINERS = {
    b"RIFF": "a WAV file",
    b"\x1aE\xdf\xa3": "WebM, which a browser's MediaRecorder makes",
    b"OggS": "an Ogg file",
    b"fLaC": "a FLAC file",
    b"ID3": "an MP3 file",
    b"FORM": "an AIFF file",
}


class SignalDoctor:
    """Watches one stream; every finding is given once, in words for its user."""

    def __init__(self, options: SessionOptions, converter: Converter) -> None:
        self._options = options
        self._converter = converter
        self._size = LOOK_S * bytes_per_second(options.sample_rate, options.encoding, options.channels)
        self._looks = LOOKS
        self._seen = bytearray()
        self._position = 0
        self._given: set[str] = set()

    def look(self, data: bytes | memoryview) -> list[str]:
        """New findings about the next of the client's messages."""
        found = [
            f"this looks like {what}: send the samples alone, without a header, or decode it first"
            for start, what in CONTAINERS.items()
            if bytes(data[: len(start)]) == start
        ]
        if self._looks and self._options.encoding == "pcm_s16le":
            self._gather(bytes(data))
            if len(self._seen) >= self._size:
                from sttd.audio.misread import misread  # it needs NumPy, which takes a while to import

                self._looks -= 1
                found += misread(bytes(self._seen), self._options.sample_rate, self._options.channels)
                self._seen.clear()
        self._position += len(data)
        return self._new(found)

    def _gather(self, data: bytes) -> None:
        """Bytes one after another from a whole frame on, beginning where it is not silent."""
        if not self._seen:
            data = data[-self._position % (4 * self._options.channels) :]
            if data.count(0) > 0.75 * len(data):
                return
        self._seen += data[: self._size]

    def report(self) -> list[str]:
        """New findings about the levels of all that was converted so far."""
        count, mean, _power, full, _zeros, _gap = self._converter.levels()
        found = []
        if count >= RATE and full > MOST_FULL:
            found.append(f"{full:.1%} of the samples are at full scale: the recording level is too high")
        if count >= RATE and abs(mean) > MOST_OFFSET:
            found.append(f"the signal is off centre by {mean:+.1%} of full scale: the sound card may be faulty")
        return self._new(found)

    @property
    def summary(self) -> str:
        """The levels of the whole stream, for the log."""
        _count, mean, power, full, _zeros, gap = self._converter.levels()
        level = 10 * math.log10(power) if power else -math.inf
        return f"level_db={level:.0f} offset={mean:.3f} full_scale={full:.4f} longest_gap_s={gap / RATE:.1f}"

    def _new(self, found: list[str]) -> list[str]:
        new = [finding for finding in found if finding not in self._given]
        self._given.update(new)
        return new
