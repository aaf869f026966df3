"""What is wrong with a client's audio, said before its user wonders why the text is nonsense.

Levels, clipping and gaps are counted by the converter as it goes; the guesses about a wrong format look at a few
seconds of the bytes as they came.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from sttd.audio.format import RATE, bytes_per_second

if TYPE_CHECKING:
    from sttd._pcm import Converter
    from sttd.config.config import SessionOptions

logger = logging.getLogger(__name__)
LOOK_S = 3
LOOKS = 5
"""A guess is made for each of the first so many times LOOK_S seconds that are not silent."""

MOST_BYTES = 1 << 19
"""Bytes that are gathered for it at most."""

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
    """Watches one stream; findings are in words for its user, and may be given again and again."""

    def __init__(self, options: SessionOptions, converter: Converter) -> None:
        self._options = options
        self._converter = converter
        second = bytes_per_second(options.sample_rate, options.encoding, options.channels)
        self._size = min(LOOK_S * second, MOST_BYTES)
        self._looks = LOOKS
        self._seen = bytearray()
        self._position = 0
        self._fresh = True

    @property
    def due(self) -> bool:
        """Whether there is enough to `examine`."""
        return len(self._seen) >= self._size

    def look(self, data: bytes | memoryview) -> list[str]:
        """Findings about the next of the client's messages, and about all before it."""
        found = []
        if self._fresh and bytes(data[:4]).startswith(tuple(CONTAINERS)):
            what = next(what for start, what in CONTAINERS.items() if bytes(data[:4]).startswith(start))
            found.append(f"this looks like {what}: send the samples alone, without a header, or decode it first")
        if self._looks and self._options.encoding == "pcm_s16le":
            self._gather(bytes(data))
        self._position += len(data)
        self._fresh = self._fresh and not data
        return found + self._levels()

    def flushed(self) -> None:
        """What follows is a new recording, which may be a file."""
        self._fresh = True

    def examine(self) -> list[str]:
        """Findings about the bytes that were gathered. Takes some milliseconds, more on a Pi: call it in a thread."""
        seen = bytes(self._seen)
        self._seen.clear()
        self._looks -= 1
        try:
            from sttd.audio.misread import misread

            return misread(seen, self._options.sample_rate, self._options.channels)
        except ImportError:  # NumPy comes with the extras of the local providers
            pass
        except Exception:  # advice must not end a session
            logger.exception("the doctor failed; the session goes on")
        self._looks = 0
        return []

    def _gather(self, data: bytes) -> None:
        """Bytes one after another from a whole frame on, beginning where it is not silent."""
        if not self._seen:
            data = data[-self._position % (4 * self._options.channels) :]
            if data.count(0) > 0.75 * len(data):
                return
        self._seen += data[: self._size - len(self._seen)]

    def _levels(self) -> list[str]:
        """About all that was converted so far."""
        count, mean, _power, full, _zeros, _gap = self._converter.levels()
        found = []
        if count >= LOOK_S * RATE and full > MOST_FULL:
            found.append("too many samples are at full scale: the recording level is too high")
        if count >= LOOK_S * RATE and abs(mean) > MOST_OFFSET:
            found.append("the signal is off centre: the sound card may be faulty")
        return found

    @property
    def summary(self) -> tuple[float, float, float, float]:
        """Of the whole stream, for the log: level in dB, offset, share at full scale, longest gap in seconds."""
        _count, mean, power, full, _zeros, gap = self._converter.levels()
        level = 10 * math.log10(power) if power else -math.inf
        return level, mean, full, gap / RATE
