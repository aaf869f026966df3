"""Parsers of what comes from outside raise what they say, and nothing else. Examples that once broke one stay here.

Here inputs are made that are nearly right; tests/fuzz finds others by what code they reach.

`STTD_FUZZ=100000 make test PYTEST_ARGS="-k hostile_input"` tries more.
"""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sttd.audio.decode import Unusable, wav_pieces
from sttd.clouds.groq import transcript_of
from sttd.config.config import AccessConfig, Config
from sttd.config.loading import load
from sttd.config.settings import settings_of
from sttd.errors import CloudError, ConfigError
from sttd.http.access import Access
from sttd.wires.frames import Flood, FrameFilter

if TYPE_CHECKING:
    from pathlib import Path

many = settings(max_examples=int(os.environ.get("STTD_FUZZ", "150")))

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


def toml(value: object) -> str:
    """Near enough."""
    return json.dumps(value)


@many
@given(st.dictionaries(st.sampled_from([*settings_of(Config), "nonsense", "server"]), values, max_size=3))
@example({"server": 5})
@example({"limits.connections": 1e400})
def test_settings(folder: Path, found: dict[str, Any]) -> None:
    file = folder / "sttd.toml"
    file.write_text("\n".join(f"{key} = {toml(value)}" for key, value in found.items()))
    with suppress(ConfigError):
        load({}, {}, file)


@many
@given(st.binary(max_size=200) | st.dictionaries(st.sampled_from(["a", "b"]), values, max_size=2))
@example(b"\xff")
@example({"a": {"token": "x" * 20, "sessions": True}})
def test_tokens(folder: Path, found: bytes | dict[str, Any]) -> None:
    file = folder / "tokens.toml"
    text = found if isinstance(found, bytes) else "\n".join(f"{k} = {toml(v)}" for k, v in found.items()).encode()
    file.write_bytes(text)
    with suppress(ConfigError):
        Access.read(AccessConfig(tokens_file=str(file)), {})


def wav(channels: int, rate: int, bits: int, data: bytes) -> bytes:
    frame = channels * ((bits + 7) // 8)
    head = struct.pack("<HHIIHH", 1, channels, rate, (rate * frame) & 0xFFFFFFFF, frame & 0xFFFF, bits)
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


small = st.integers(0, 70)
wavs = st.builds(wav, st.integers(0, 65535), st.integers(0, 2**32 - 1), small, st.binary(max_size=50))
JUNK_OF_4_GIB = b"RIFF\x24\x00\x00\x00WAVEjunk\xfe\xff\xff\xff" + bytes(300_000)


@many
@given(wavs, st.integers(0, 120))
@example(wav(1, 16000, 64, b""), 120)
@example(wav(0, 16000, 16, b""), 120)
@example(wav(1, 2**32 - 1, 16, bytes(50)), 120)
@example(JUNK_OF_4_GIB, len(JUNK_OF_4_GIB))
def test_recordings(found: bytes, length: int) -> None:
    """Whatever the header says, it takes little memory."""
    tracemalloc.start()
    try:
        with suppress(Unusable):
            next(wav_pieces(BytesIO(found[:length])), b"")
        assert tracemalloc.get_traced_memory()[1] < 3 * 2**20
    finally:
        tracemalloc.stop()


@many
@given(st.fixed_dictionaries({"text": st.text()}, optional={"words": values, "segments": values}))
@example({"text": "", "words": 5})
@example({"text": "\ud800", "words": [{"word": "\ud800", "start": float("nan"), "end": 1}]})
@example({"text": "", "words": [{"word": "a", "start": 0, "end": 1}], "segments": [5]})
@example({"text": "", "words": [{"word": "a", "start": 10**400, "end": 1}]})
def test_answers_of_groq(answer: dict[str, Any]) -> None:
    with suppress(CloudError):
        found = transcript_of(json.dumps(answer).encode())
        json.dumps(found.text).encode()
        assert all(word.start == word.start for word in found.words), "no NaN"


@many
@given(st.lists(st.binary(max_size=40), max_size=10))
@example([b"\x82\xff" + b"\xff" * 12])
@example([b"\x88", b"\x00"])
def test_frames(chunks: list[bytes]) -> None:
    frames = FrameFilter(1000, 5000)
    with suppress(Flood):
        for chunk in chunks:
            assert len(frames.feed(chunk, 0.0)) <= sum(map(len, chunks)) + 14 * len(chunks) + 14
