"""The signal doctor: real recordings misread in the usual ways, and none misjudged that is right."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest

from sttd.audio.doctor import CONTAINERS
from sttd.audio.pipeline import Pipeline
from sttd.config.config import SessionOptions
from tests.support import Clip, at_16k_mono, shared_clips


def findings(data: bytes, **options: object) -> list[str]:
    """Everything that is said about a stream in messages of a quarter of a second, each thing once."""
    pipeline = Pipeline(dataclasses.replace(SessionOptions(), **options))  # type: ignore[arg-type]
    said: set[str] = set()
    for start in range(0, len(data), 8000):
        pipeline.feed(data[start : start + 8000])
        said.update(pipeline.doctor.look(data[start : start + 8000]))
        if pipeline.doctor.due:
            said.update(pipeline.doctor.examine())
    return sorted(said)


def samples(clip: Clip) -> np.ndarray:
    return np.frombuffer(at_16k_mono(clip), np.int16)


def test_floats_announced_as_integers(two_cities: Clip) -> None:
    data = (samples(two_cities)[: 16000 * 10] / 32768).astype("<f4").tobytes()
    assert any("pcm_f32le" in finding for finding in findings(data))


def test_swapped_bytes(two_cities: Clip) -> None:
    data = samples(two_cities)[: 16000 * 10].astype(">i2").tobytes()
    assert any("swapped" in finding for finding in findings(data))


def test_48_khz_announced_as_16(two_cities: Clip) -> None:
    assert two_cities.rate == 48000
    assert any("48 kHz" in finding for finding in findings(two_cities.pcm[: 96000 * 12]))
    assert findings(two_cities.pcm[: 96000 * 12], sample_rate=48000) == []


def test_a_wav_file_with_its_header(two_cities: Clip) -> None:
    assert any("WAV" in finding for finding in findings(two_cities.path.read_bytes(), sample_rate=48000))


@pytest.mark.parametrize("magic", sorted(CONTAINERS))
def test_a_file_is_known_at_the_start_of_a_stream_alone(magic: bytes) -> None:
    """The same four bytes in mid-stream are samples."""
    doctor = Pipeline(SessionOptions()).doctor
    assert doctor.look(b"") == []
    assert doctor.look(magic + bytes(100))
    assert doctor.look(magic + bytes(100)) == []
    doctor.flushed()
    assert doctor.look(magic + bytes(100))


def test_without_numpy_the_levels_are_still_seen(two_cities: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (samples(two_cities)[: 16000 * 10] / 32768).astype("<f4").tobytes()
    monkeypatch.setitem(sys.modules, "sttd.audio.misread", None)
    assert not any("pcm_f32le" in finding for finding in findings(data))
    loud = np.clip(samples(two_cities).astype(int) * 40, -32768, 32767).astype(np.int16)
    assert any("full scale" in finding for finding in findings(loud.tobytes()))


@pytest.mark.parametrize("start", CONTAINERS)
def test_other_containers(start: bytes) -> None:
    assert len(findings(start + bytes(1000))) == 1


def test_clipping_and_offset_are_found_in_the_levels(two_cities: Clip) -> None:
    loud = np.clip(samples(two_cities).astype(int) * 40, -32768, 32767).astype(np.int16)
    assert any("full scale: the recording level" in finding for finding in findings(loud.tobytes()))
    shifted = (samples(two_cities) // 2 + 2000).astype(np.int16)
    assert any("off centre" in finding for finding in findings(shifted.tobytes()))


def test_levels_count_what_was_converted() -> None:
    pcm = np.concatenate([np.full(1000, 16384), np.zeros(3000), np.full(50, -32768), np.full(950, 32767)])
    pipeline = Pipeline(SessionOptions(gate=False))
    pipeline.feed(pcm.astype(np.int16).tobytes())
    converter = pipeline.doctor._converter
    count, mean, power, full, zeros, gap = converter.levels()
    assert (count, full, zeros, gap) == (5000, 0.2, 0.6, 3000)
    assert mean == pytest.approx((pcm / 32768).mean())
    assert power == pytest.approx(((pcm / 32768) ** 2).mean())
    assert pipeline.doctor.summary == pytest.approx((-6, 0.28, 0.2, 0.2), abs=0.5)


def test_clean_recordings_have_no_findings(two_cities: Clip, beckett: Clip) -> None:
    for clip in (two_cities, beckett):
        assert findings(clip.pcm, sample_rate=clip.rate, channels=clip.samples.shape[1]) == []


def test_clean_recordings_of_many_voices_have_no_findings() -> None:
    clips = [*shared_clips("en/"), *shared_clips("ko/"), *shared_clips("other/")]
    if not clips:
        pytest.skip("../shared/speech is missing")
    assert len(clips) > 80
    said = {clip.name: findings(at_16k_mono(clip)) for clip in clips}
    assert {name: found for name, found in said.items() if found} == {}


def test_noises_have_no_findings() -> None:
    clips = shared_clips("noise/")
    if not clips:
        pytest.skip("../shared/speech is missing")
    wrong = {"full scale", "off centre"}  # some of them are
    said = {clip.name: findings(at_16k_mono(clip)) for clip in clips}
    found = {name: [f for f in found if not any(part in f for part in wrong)] for name, found in said.items()}
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize("frequency", [50, 60, 440, 3000, 5000, 6000, 7000])
@pytest.mark.parametrize("amplitude", [20, 8000])
def test_hum_and_tones_have_no_findings(frequency: float, amplitude: float) -> None:
    time = np.arange(16000 * 10) / 16000
    noise = np.random.default_rng(1).normal(0, 20, len(time))
    tone = amplitude * np.sin(2 * np.pi * frequency * time) + noise
    assert findings(tone.astype("<i2").tobytes()) == []
    assert findings(tone.astype("<i2").tobytes(), gate=False) == []


def test_a_click_before_digital_silence_has_no_findings() -> None:
    click = np.zeros(16000 * 10, "<i2")
    click[:600] = 20000
    assert findings(click.tobytes()) == []
    assert findings(b"\1" + click.tobytes()[:-1]) == []


@pytest.mark.parametrize("size", [1, 3, 7, 1001])
def test_messages_of_any_size_are_looked_at(two_cities: Clip, size: int) -> None:
    data = samples(two_cities)[: 16000 * 4].astype(">i2").tobytes()
    pipeline = Pipeline(SessionOptions())
    said: list[str] = []
    for start in range(0, len(data), size):
        said += pipeline.doctor.look(memoryview(data)[start : start + size])
        if pipeline.doctor.due:
            said += pipeline.doctor.examine()
    assert any("swapped" in finding for finding in said)
