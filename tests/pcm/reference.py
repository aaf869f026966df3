"""The audio path's arithmetic written plainly in double precision, for the compiled one to be compared with."""

from __future__ import annotations

import math
import struct

import numpy as np

ATTENUATION = 100.0


def taps(rate_in: int, rate_out: int) -> tuple[np.ndarray, int, int]:
    """Branches x taps of the polyphase filter, and the factors up and down."""
    divisor = math.gcd(rate_in, rate_out)
    up, down = rate_out // divisor, rate_in // divisor
    nyquist = min(rate_in, rate_out) / 2
    length = int((ATTENUATION - 7.95) / (14.36 * 0.14 * nyquist / rate_in)) + 1
    length = -(-length // 8) * 8
    time = np.arange(length)[None, :] - (length // 2 - 1) - np.arange(up)[:, None] / up
    window = np.i0(0.1102 * (ATTENUATION - 8.7) * np.sqrt(np.maximum(0, 1 - (time / (length / 2)) ** 2)))
    window[np.abs(time) >= length / 2] = 0
    branches = window * np.sinc(2 * 0.98 * nyquist / rate_in * time)
    return np.asarray(branches / branches.sum(axis=1, keepdims=True)), up, down


def resample(mono: np.ndarray, rate_in: int, rate_out: int = 16000) -> np.ndarray:
    """`mono` (in units of s16) at another rate, as s16."""
    if rate_in == rate_out:
        return saturate(mono)
    branches, up, down = taps(rate_in, rate_out)
    length = branches.shape[1]
    padded = np.concatenate([np.zeros(length // 2 - 1), mono, np.zeros(length)])
    count = len(mono) + length // 2 - 1 + length // 2 - length
    made = []
    number = 0
    while (start := number * down // up) <= count:
        made.append(padded[start : start + length] @ branches[number * down % up])
        number += 1
    return saturate(np.array(made))


def saturate(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(np.rint(values), -32768, 32767).astype(np.int16))


def decode(data: bytes, encoding: str, channels: int) -> np.ndarray:
    """Whole frames as mono samples in units of s16."""
    width = {"pcm_s16le": 2, "pcm_s24le": 3, "pcm_s32le": 4, "pcm_f32le": 4}.get(encoding, 1)
    data = data[: len(data) // (width * channels) * width * channels]
    samples = [sample(data[start : start + width], encoding) for start in range(0, len(data), width)]
    return np.asarray(np.array(samples).reshape(-1, channels).mean(axis=1))


def sample(data: bytes, encoding: str) -> float:
    match encoding:
        case "pcm_u8":
            return (data[0] - 128) * 256
        case "pcm_mulaw":
            return float(mulaw(data[0]))
        case "pcm_alaw":
            return float(alaw(data[0]))
        case "pcm_f32le":
            value: float = struct.unpack("<f", data)[0]
            return 0.0 if math.isnan(value) else max(-8.0, min(8.0, value)) * 32768
        case _:
            return float(int.from_bytes(data, "little", signed=True) / 256 ** (len(data) - 2))


def mulaw(code: int) -> int:
    """ITU-T G.711 table 2a/2b: sign, three bits of segment, four bits of step, all inverted."""
    code = ~code & 0xFF
    segment, step = code >> 4 & 7, code & 15
    magnitude = (2 * step + 33 << segment) - 33 << 2
    return -magnitude if code & 0x80 else magnitude


def alaw(code: int) -> int:
    """ITU-T G.711 table 1a/1b: even bits inverted."""
    code ^= 0x55
    segment, step = code >> 4 & 7, code & 15
    magnitude = 2 * step + 1 if segment == 0 else 2 * step + 33 << segment - 1
    return magnitude * 8 if code & 0x80 else -magnitude * 8
