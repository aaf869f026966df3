"""The audio format of clients, and the format of recognizers: s16 little-endian, 16 kHz, mono."""

from __future__ import annotations

from functools import lru_cache

from sttd._pcm import Converter
from sttd._resampler import FilterBank

RATE = 16000
SAMPLE_BYTES = 2
FRAME = 320
"""Samples in a frame, which the voice gate judges as a whole: 20 ms."""


@lru_cache(maxsize=16)
def filter_bank(sample_rate: int) -> FilterBank:
    """Return the filters from `sample_rate` to 16 kHz. The first call for a rate takes some milliseconds."""
    return FilterBank(sample_rate, RATE)


def converter(sample_rate: int, encoding: str, channels: int, channel: int = 0) -> Converter:
    """Return a converter for a new stream. `channel` counts from 1; 0 means the mean of all channels."""
    return Converter(encoding, channels, filter_bank(sample_rate), channel - 1 if channel else None)


def samples(milliseconds: int) -> int:
    """Return the number of 16 kHz samples in a time."""
    return RATE * milliseconds // 1000


def seconds(pcm: bytes | bytearray) -> float:
    """Return the duration of PCM in the recognizers' format."""
    return len(pcm) / (RATE * SAMPLE_BYTES)


def bytes_per_second(sample_rate: int, encoding: str, channels: int) -> int:
    """Return the data rate of a client's audio."""
    widths = {"pcm_s24le": 3, "pcm_s32le": 4, "pcm_f32le": 4, "pcm_s16le": 2}
    return sample_rate * channels * widths.get(encoding, 1)
