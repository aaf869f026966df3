"""From a client's audio format to the one that recognizers take: s16 little-endian, 16 kHz, mono."""

from __future__ import annotations

from functools import lru_cache

from sttd._pcm import Converter
from sttd._resampler import FilterBank

RATE = 16000
SAMPLE_BYTES = 2
FRAME = 320
"""Samples that the voice gate judges at a time: 20 ms."""


@lru_cache(maxsize=16)
def filter_bank(sample_rate: int) -> FilterBank:
    """The filters from `sample_rate` to 16 kHz; the first call for a rate takes some milliseconds."""
    return FilterBank(sample_rate, RATE)


def converter(sample_rate: int, encoding: str, channels: int, channel: int = 0) -> Converter:
    """A new stream's converter. `channel` counts from 1; 0 takes the mean of all."""
    return Converter(encoding, channels, filter_bank(sample_rate), channel - 1 if channel else None)


def samples(milliseconds: int) -> int:
    """How many samples of the recognizers' format a time has."""
    return RATE * milliseconds // 1000


def seconds(pcm: bytes | bytearray) -> float:
    """Duration of PCM in the recognizers' format."""
    return len(pcm) / (RATE * SAMPLE_BYTES)


def bytes_per_second(sample_rate: int, encoding: str, channels: int) -> int:
    """Data rate of a client's audio."""
    widths = {"pcm_s24le": 3, "pcm_s32le": 4, "pcm_f32le": 4, "pcm_s16le": 2}
    return sample_rate * channels * widths.get(encoding, 1)
