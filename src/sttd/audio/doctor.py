"""Find faults in a client's audio, such as a wrong format or level, that would give nonsense as text.

The converter counts levels, clipping and gaps while it runs. The guesses about a wrong format need a few seconds of
the received bytes.
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
"""A format is guessed for each of the first LOOKS stretches of LOOK_S seconds that are not silent."""

MAX_BYTES = 1 << 19
"""Maximum size of such a stretch."""

MAX_FULL, MAX_OFFSET = 0.002, 0.02
"""Maximum share of samples at full scale, and maximum distance of the mean from zero as a share of full scale."""

CONTAINERS = {
    b"RIFF": "a WAV file",
    b"\x1aE\xdf\xa3": "WebM, which a browser's MediaRecorder makes",
    b"OggS": "an Ogg file",
    b"fLaC": "a FLAC file",
    b"ID3": "an MP3 file",
    b"FORM": "an AIFF file",
}


class SignalDoctor:
    """Watches one stream. Findings are sentences for its user; the same finding may be returned many times."""

    def __init__(self, options: SessionOptions, converter: Converter) -> None:
        self._options = options
        self._converter = converter
        second = bytes_per_second(options.sample_rate, options.encoding, options.channels)
        self._size = min(LOOK_S * second, MAX_BYTES)
        self._looks = LOOKS
        self._seen = bytearray()
        self._position = 0
        self._fresh = True

    @property
    def due(self) -> bool:
        """Whether enough bytes are gathered for `examine`."""
        return len(self._seen) >= self._size

    def look(self, data: bytes | memoryview) -> list[str]:
        """Take the next message; return findings about it, and about the levels of the stream so far."""
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
        """Expect a new recording, which may be a file with a header."""
        self._fresh = True

    def examine(self) -> list[str]:
        """Return findings about the gathered bytes. Takes milliseconds, more on a slow machine: call it in a thread."""
        seen = bytes(self._seen)
        self._seen.clear()
        self._looks -= 1
        try:
            from sttd.audio.misread import misread

            return misread(seen, self._options.sample_rate, self._options.channels)
        except ImportError:  # NumPy comes only with the extras of the local providers
            pass
        except Exception:  # a missing hint must not end a session
            logger.exception("the check of the audio format failed; the session goes on")
        self._looks = 0
        return []

    def _gather(self, data: bytes) -> None:
        """Gather consecutive bytes, from the first whole frame of a message that is not mostly zeros."""
        if not self._seen:
            data = data[-self._position % (4 * self._options.channels) :]
            if data.count(0) > 0.75 * len(data):
                return
        self._seen += data[: self._size - len(self._seen)]

    def _levels(self) -> list[str]:
        """Return findings about the levels of all converted audio."""
        count, mean, _power, full, _zeros, _gap = self._converter.levels()
        found = []
        if count >= LOOK_S * RATE and full > MAX_FULL:
            found.append("too many samples are at full scale: the recording level is too high")
        if count >= LOOK_S * RATE and abs(mean) > MAX_OFFSET:
            found.append("the signal is off centre: the sound card may be faulty")
        return found

    @property
    def summary(self) -> tuple[float, float, float, float]:
        """For the log: the stream's level in dB, its offset, its share of samples at full scale, and its longest gap
        in seconds."""
        _count, mean, power, full, _zeros, gap = self._converter.levels()
        level = 10 * math.log10(power) if power else -math.inf
        return level, mean, full, gap / RATE
