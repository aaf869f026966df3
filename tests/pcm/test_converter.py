"""Sample formats and resampling: the compiled module against plain double precision."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sttd._pcm import Converter
from sttd._resampler import FilterBank
from sttd.audio.format import converter
from sttd.config.config import ENCODINGS, SAMPLE_RATES
from tests.pcm import reference

WIDTHS = {"pcm_s24le": 3, "pcm_s32le": 4, "pcm_f32le": 4, "pcm_s16le": 2}


def convert(data: bytes, rate: int, encoding: str = "pcm_s16le", channels: int = 1) -> np.ndarray:
    stream = converter(rate, encoding, channels)
    return np.frombuffer(stream.feed(data) + stream.flush(), np.int16)


def tone(rate: int, frequency: float, amplitude: float = 0.5, seconds: float = 1.0) -> np.ndarray:
    time = np.arange(int(rate * seconds)) / rate
    return np.rint(amplitude * 32767 * np.sin(2 * np.pi * frequency * time)).astype(np.int16)


def level_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.mean((samples[2000:-2000] / 32768.0) ** 2) * 2 + 1e-15))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_code_of_a_format_is_decoded_as_its_definition_says(encoding: str) -> None:
    width = WIDTHS.get(encoding, 1)
    data = bytes(range(256)) if width == 1 else np.random.default_rng(5).bytes(width * 5000)
    ours = convert(data, 16000, encoding).astype(int)
    difference = np.abs(ours - reference.saturate(reference.decode(data, encoding, 1)))
    # Only 32 bits do not fit into a float: a value halfway between two steps may then go to either.
    assert difference.max() <= (1 if encoding == "pcm_s32le" else 0)


def test_16_khz_mono_s16_passes_through_unchanged() -> None:
    data = np.random.default_rng(1).bytes(100_000)
    assert convert(data, 16000).tobytes() == data


@given(
    data=st.binary(max_size=3000),
    cuts=st.lists(st.integers(0, 3000), max_size=20),
    rate=st.sampled_from(SAMPLE_RATES),
    encoding=st.sampled_from(ENCODINGS),
    channels=st.integers(1, 8),
)
def test_output_does_not_depend_on_how_the_input_is_cut(
    data: bytes, cuts: list[int], rate: int, encoding: str, channels: int
) -> None:
    whole = converter(rate, encoding, channels)
    expected = whole.feed(data) + whole.flush()
    pieces = converter(rate, encoding, channels)
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    made = b"".join(pieces.feed(data[start:end]) for start, end in itertools.pairwise(edges))
    assert made + pieces.flush() == expected


def test_output_does_not_change_when_bytes_come_one_at_a_time() -> None:
    data = tone(44100, 700, seconds=0.1).tobytes()
    stream = converter(44100, "pcm_s16le", 2)
    one_by_one = b"".join(stream.feed(data[at : at + 1]) for at in range(len(data))) + stream.flush()
    assert one_by_one == convert(data, 44100, channels=2).tobytes()


@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_resampling_is_within_one_step_of_double_precision(rate: int) -> None:
    noise = np.random.default_rng(rate).integers(-32768, 32768, rate // 8, dtype=np.int16)
    ours = convert(noise.tobytes(), rate).astype(int)
    theirs = reference.resample(noise.astype(float), rate).astype(int)
    assert len(ours) == len(theirs)
    assert np.abs(ours - theirs).max() <= 1


@given(data=st.binary(min_size=1, max_size=600), encoding=st.sampled_from(ENCODINGS), channels=st.integers(1, 8))
def test_downmix_is_within_one_step_of_double_precision(data: bytes, encoding: str, channels: int) -> None:
    ours = convert(data, 16000, encoding, channels).astype(int)
    theirs = reference.saturate(reference.decode(data, encoding, channels)).astype(int)
    assert len(ours) == len(theirs)
    assert len(ours) == 0 or np.abs(ours - theirs).max() <= 1


@pytest.mark.parametrize("rate", [22050, 44100, 48000, 96000, 192000])
def test_speech_band_is_kept_and_what_would_fold_into_it_is_gone(rate: int) -> None:
    for frequency in (100, 1000, 4000, 7000, 7200):
        assert abs(level_db(convert(tone(rate, frequency).tobytes(), rate)) - level_db(tone(16000, 100))) < 0.01
    for frequency in (8400, 9000, 10000, 15000, 20000):
        if frequency < rate / 2:
            assert level_db(convert(tone(rate, frequency).tobytes(), rate)) < -90


@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_output_lies_where_the_input_lay(rate: int) -> None:
    ours = convert(tone(rate, 440).tobytes(), rate)
    assert abs(len(ours) - 16000) <= 1
    expected = tone(16000, 440)[: len(ours)]
    assert np.abs(ours[500:15500].astype(int) - expected[500:15500]).max() <= 3


def test_too_loud_saturates() -> None:
    loud = (np.sign(tone(48000, 300, seconds=0.2)) * 32767).astype(np.int16)
    stream = converter(48000, "pcm_s16le", 1)
    made = np.frombuffer(stream.feed(loud.tobytes()) + stream.flush(), np.int16).astype(int)
    assert made.max() == 32767
    assert made.min() == -32768
    assert np.abs(made - reference.resample(loud.astype(float), 48000)).max() <= 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e38, -1e38])
def test_floats_that_are_no_audio_do_not_poison_the_stream(value: float) -> None:
    stream = converter(48000, "pcm_f32le", 1)
    stream.feed(np.full(10, value, np.float32).tobytes())
    silence = stream.feed(np.zeros(48000, np.float32).tobytes())
    assert not any(silence[-1000:])


@pytest.mark.parametrize(
    ("encoding", "channels"), [("pcm_s16le", 1), ("pcm_s24le", 1), ("pcm_f32le", 3), ("pcm_s16le", 8)]
)
def test_flush_drops_the_bytes_of_an_incomplete_frame(encoding: str, channels: int) -> None:
    width = {"pcm_s16le": 2, "pcm_s24le": 3, "pcm_f32le": 4}[encoding] * channels
    data = tone(16000, 500).tobytes()
    data = data[: len(data) // width * width]
    for left_over in range(1, width):
        stream, fresh = converter(16000, encoding, channels), converter(16000, encoding, channels)
        stream.feed(data[:left_over])
        assert stream.pending == left_over
        assert stream.flush() == b""
        assert stream.pending == 0
        assert stream.feed(data) == fresh.feed(data)


@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_quality_at_full_scale(rate: int) -> None:
    """From exact input, so that only sttd's own errors count; rounding the output alone leaves 98 dB."""
    low = min(rate, 16000) / 2

    def level(frequency: float) -> float:
        time = np.arange(rate // 2) / rate
        exact = (0.99 * np.sin(2 * np.pi * frequency * time)).astype("<f4")
        made = convert(exact.tobytes(), rate, "pcm_f32le")[1000:-1000] / 32768
        return float(10 * np.log10(2 * np.mean(made**2) / 0.99**2 + 1e-15))

    assert abs(level(0.1 * low)) < 0.01
    assert abs(level(0.9 * low)) < 0.01
    assert level(0.95 * low) > -3
    for stopped in np.arange(1.05 * low, rate / 2, max(rate / 80, 100)) if rate > 16000 else ():
        assert level(float(stopped)) < -90, stopped
    time = np.arange(rate) / rate
    made = convert((0.999 * np.sin(2 * np.pi * 997 * time)).astype("<f4").tobytes(), rate, "pcm_f32le")[2000:-2000]
    basis = np.stack(
        [
            np.sin(2 * np.pi * 997 / 16000 * np.arange(len(made))),
            np.cos(2 * np.pi * 997 / 16000 * np.arange(len(made))),
            np.ones(len(made)),
        ],
        axis=1,
    )
    found = np.linalg.lstsq(basis, made)[0]
    error = made - basis @ found
    assert 10 * np.log10((found[0] ** 2 + found[1] ** 2) / 2 / np.mean(error**2)) > 96
    assert abs(found[2]) < 0.05


@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_output_lags_input_by_no_more_than_the_delay(rate: int) -> None:
    stream = converter(rate, "pcm_s16le", 1)
    assert stream.delay <= 0.02
    made, sent = 0, 0
    for size in [rate // 50] * 10 + [1] * 200:
        made += len(stream.feed(bytes(2 * size))) // 2
        sent += size
        assert made / 16000 >= sent / rate - stream.delay - 1e-9
        assert made <= sent * 16000 / rate + 1


def test_two_threads_cannot_use_one_converter_at_once() -> None:
    stream = converter(8000, "pcm_s16le", 1)
    data, errors = bytes(1 << 20), []

    def feed() -> None:
        for _ in range(40):
            try:
                stream.feed(data)
                stream.flush()
            except RuntimeError as error:
                errors.append(str(error))

    threads = [threading.Thread(target=feed) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(errors) <= {"another thread is using this converter"}
    assert stream.feed(b"") == b"", "it is free again"


def test_flush_starts_a_new_stream() -> None:
    stream = converter(48000, "pcm_s16le", 1)
    data = tone(48000, 500).tobytes()
    first = stream.feed(data) + stream.flush()
    assert stream.feed(data) + stream.flush() == first


@pytest.mark.parametrize(
    ("encoding", "channels", "part"), [("mp3", 1, "pcm_s16le"), ("pcm_u8", 0, "1 to 8"), ("pcm_u8", 9, "1 to 8")]
)
def test_bad_arguments_say_what_is_allowed(encoding: str, channels: int, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        Converter(encoding, channels, FilterBank(16000, 16000))


@pytest.mark.parametrize(
    ("rate_in", "rate_out"), [(0, 16000), (16000, 0), (-1, 16000), (191999, 16000), (2**63 - 1, 2**62), (1, 16000)]
)
def test_rates_that_have_no_filter_are_refused(rate_in: int, rate_out: int) -> None:
    with pytest.raises(ValueError, match=r"positive|too fine"):
        FilterBank(rate_in, rate_out)
