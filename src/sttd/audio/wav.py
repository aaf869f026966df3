"""Read the header of a WAV file: the format of its samples.

Python's `wave` does not read float samples, nor, in 3.11, WAVE_FORMAT_EXTENSIBLE (24 bits, three channels). The format
is described in Microsoft's "Multiple Channel Audio Data and WAVE Files".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

PCM, FLOAT, ALAW, MULAW, EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
ENCODINGS = {
    (PCM, 8): "pcm_u8",
    (PCM, 16): "pcm_s16le",
    (PCM, 24): "pcm_s24le",
    (PCM, 32): "pcm_s32le",
    (FLOAT, 32): "pcm_f32le",
    (ALAW, 8): "pcm_alaw",
    (MULAW, 8): "pcm_mulaw",
}
FORMAT_BYTES = 64  # the longest known "fmt " chunk has 40
SKIPPED_BYTES = 65536
NAMES = {PCM: "PCM", FLOAT: "float", ALAW: "A-law", MULAW: "mu-law"}


@dataclass(frozen=True, slots=True)
class WavHead:
    """The format of the samples. The next `size` bytes of the file are samples (-1: all bytes to its end)."""

    rate: int
    channels: int
    encoding: str
    size: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame: one sample of every channel."""
        return self.channels * next(bits for (_tag, bits), name in ENCODINGS.items() if name == self.encoding) // 8


def read_head(file: BinaryIO) -> WavHead:
    """Read the header, up to the first sample. Raises ValueError, in words for the user, if the file cannot be used."""
    start = file.read(12)
    if start[:4] != b"RIFF" or start[8:] != b"WAVE":
        raise ValueError("is not a WAV file")
    found: tuple[int, int, str] | None = None
    while len(head := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        if name == b"data":
            if found is None:
                raise ValueError("does not say the format of its samples")
            return WavHead(*found, -1 if size == 0xFFFFFFFF else size)
        content = file.read(min(size, FORMAT_BYTES))
        _skip(file, size + size % 2 - len(content))
        if name == b"fmt ":
            found = _format(content)
    raise ValueError("is cut off before its first sample")


def _skip(file: BinaryIO, size: int) -> None:
    """Pass over bytes, a few at a time: `read` allocates what it is asked for, and a header may say 4 GiB."""
    while size > 0 and (skipped := file.read(min(size, SKIPPED_BYTES))):
        size -= len(skipped)


def _format(content: bytes) -> tuple[int, int, str]:
    """Return sample rate, channels and encoding."""
    if len(content) < 16:
        raise ValueError("is cut off in its header")
    tag, channels, rate, _bytes_a_second, _frame, bits = struct.unpack("<HHIIHH", content[:16])
    if tag == EXTENSIBLE and len(content) >= 26:
        tag = struct.unpack("<H", content[24:26])[0]
    encoding = ENCODINGS.get((tag, bits))
    if encoding is None:
        raise ValueError(f"has samples in an unsupported format ({NAMES.get(tag, f'format {tag}')} of {bits} bits)")
    if not channels or not rate:
        raise ValueError(f"has {channels} channels at {rate} samples per second")
    return rate, channels, encoding
