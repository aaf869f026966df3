"""The audio path's arithmetic written plainly in double precision, for the compiled one to be compared with."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np

ATTENUATION, HALVING = 98.0, 106.0


def stages(rate_in: int, rate_out: int) -> list[tuple[float, int, int, float, float, float]]:
    """Rate, up, down, cutoff, slope (Hz) and attenuation (dB) of each step: halving while far above, then the rest."""
    steps = []
    rate = float(rate_in)
    while rate >= 2.5 * rate_out:
        steps.append((rate, 1, 2, rate / 4, rate / 2 - 1.05 * rate_out, HALVING))
        rate /= 2
    factor = Fraction(rate_out) / Fraction(rate)
    low = min(rate, rate_out)
    slope = 0.075 * low / 0.955
    return [*steps, (rate, factor.numerator, factor.denominator, 0.525 * low - slope / 2, slope, ATTENUATION)]


def filtered(
    signal: np.ndarray, rate: float, up: int, down: int, cutoff: float, slope: float, attenuation: float
) -> np.ndarray:
    """One step: each output is the sum over the input of a Kaiser-windowed sinc centred on the output's time."""
    multiple = 2 if up <= 8 and down <= 8 else 16
    half = int((attenuation - 7.95) / (14.36 * slope / rate) / 2) + 1
    length = -(-2 * half // multiple) * multiple
    count = -(-len(signal) * up // down)
    padded = np.concatenate([np.zeros(length), signal, np.zeros(length)])
    made = np.empty(count)
    for number in range(count):
        first = number * down // up - (length // 2 - 1)
        time = first + np.arange(length) - number * down / up
        window = np.i0(0.1102 * (attenuation - 8.7) * np.sqrt(np.maximum(0, 1 - (time / (length / 2)) ** 2)))
        window[np.abs(time) >= length / 2] = 0
        taps = window * np.sinc(2 * cutoff / rate * time)
        made[number] = padded[first + length :][:length] @ taps / taps.sum()
    return made


def resample(mono: np.ndarray, rate_in: int, rate_out: int = 16000) -> np.ndarray:
    """`mono` (in units of s16) at another rate, as s16."""
    if rate_in == rate_out:
        return saturate(mono)
    count = -(-len(mono) * rate_out // rate_in)
    mono = np.concatenate([mono, np.zeros(rate_in // 100)])  # what the first step spreads, the next one gathers again
    for step in stages(rate_in, rate_out):
        mono = filtered(mono, *step)
    return saturate(mono[:count])


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


def features(signal: np.ndarray) -> np.ndarray:
    """What the voice gate's network sees of each 20 ms of 16 kHz samples: frames x (bands, over the floor, lags)."""
    mel = np.linspace(1127 * np.log(1 + 60 / 700), 1127 * np.log(1 + 7600 / 700), 30)
    edges = np.rint(700 * (np.exp(mel / 1127) - 1) * 512 / 16000).astype(int)
    bins = np.arange(257)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    bands = np.maximum(0, np.minimum(rising, falling))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(512) + 0.5) / 512)
    decay = np.correlate(window, window, "full")[511:]
    padded = np.concatenate([np.zeros(192), signal])
    rows = []
    floor = np.zeros(28)
    for start in range(0, len(signal) - 319, 320):
        power = np.abs(np.fft.rfft(padded[start : start + 512] * window)) ** 2
        level = np.log2(bands @ power + 1000)
        floor = level if start == 0 else floor + np.where(level < floor, 0.25, 0.005) * (level - floor)
        voiced = np.where((bins > 1) & (bins < 128), power, 0)
        lags = np.fft.irfft(voiced)[::2] * 512 / (decay / decay[0])[::2]
        best = [max(0, lags[a:b].max()) / (lags[0] + 1000) for a, b in ((20, 32), (32, 50), (50, 80), (80, 125))]
        rows.append(np.concatenate([level, level - floor, best]))
    return np.array(rows)


def _table(name: str) -> np.ndarray:
    text = (Path(__file__).parents[2] / "src/sttd/_vad_weights.h").read_text()
    body = text.split(f" {name}[] = {{", 1)[1].split("}", 1)[0]
    return np.array([float(word.rstrip("f")) for word in body.replace("\n", "").split(",") if word])


def instants(rows: np.ndarray) -> np.ndarray:
    """The network on those features, its memory renewed in quiet."""
    size = len(_table("sttd_out_weights"))
    dense = (_table("sttd_dense_weights").reshape(60, -1) * _table("sttd_dense_scales")).T
    memory, fresh = np.zeros((2, size)), np.zeros((2, size))
    age, opened = 0, False
    found = []
    for row in (rows - _table("sttd_mean")) * _table("sttd_scale"):
        x = np.tanh(dense @ row + _table("sttd_dense_bias"))
        _remember(memory, x)
        if age >= 50:
            _remember(fresh, x)
        instant = float(_sigmoid(_table("sttd_out_weights") @ memory[1] + _bias()))
        age = 0 if opened else age + 1
        if age % 50 == 0:
            if age >= 500 or (age >= 100 and instant < 0.3):
                memory, age = fresh, 0
            fresh = np.zeros((2, size))
        opened = instant > (0.25 if opened else 0.5)
        found.append(instant)
    return np.array(found)


def smoothed(instants: np.ndarray) -> np.ndarray:
    """Each, or the mean of the past where that is more."""
    mean, found = 0.0, []
    for instant in instants:
        mean = 0.85 * mean + 0.15 * instant
        found.append(max(mean, instant))
    return np.array(found)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def _remember(memory: np.ndarray, x: np.ndarray) -> None:
    """One step of both layers."""
    size = memory.shape[1]
    for layer, (of_input, of_state) in enumerate(_layers()):
        a, b = of_input[0] @ x + of_input[1], of_state[0] @ memory[layer] + of_state[1]
        reset, update = np.split(_sigmoid(a[: 2 * size] + b[: 2 * size]), 2)
        new = np.tanh(a[2 * size :] + reset * b[2 * size :])
        memory[layer] = x = update * memory[layer] + (1 - update) * new


@cache
def _layers() -> list[tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]]:
    """Of each layer the matrix and the bias that its input takes, and those of its state."""
    size = len(_table("sttd_out_weights"))
    weights, scales, biases = _table("sttd_gru_weights"), _table("sttd_gru_scales"), _table("sttd_gru_bias")
    parts = []
    for part, inputs in enumerate((len(_table("sttd_dense_bias")), size, size, size)):
        matrix = weights[: inputs * 3 * size].reshape(inputs, 3 * size) * scales[part * 3 * size :][: 3 * size]
        parts.append((matrix.T, biases[part * 3 * size :][: 3 * size]))
        weights = weights[inputs * 3 * size :]
    return [(parts[0], parts[1]), (parts[2], parts[3])]


def _bias() -> float:
    text = (Path(__file__).parents[2] / "src/sttd/_vad_weights.h").read_text()
    return float(text.split("sttd_out_bias = ", 1)[1].split(";", 1)[0].rstrip("f"))
