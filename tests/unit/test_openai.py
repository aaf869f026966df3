"""Forms and answers of OpenAI's audio API, without a socket."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sttd.http.messages import Body, Refused, Request
from sttd.http.multipart import Form, read_form
from sttd.protocols import openai
from sttd.protocols.recording import Utterance, language_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

names = st.text("abc[]", min_size=1, max_size=5).filter(lambda name: name != "file")
fields = st.lists(st.tuples(names, st.text(max_size=30)), max_size=5)


def form(pieces: Sequence[bytes], kind: str = "multipart/form-data; boundary=XX") -> Request:
    left = [piece for piece in pieces if piece]

    async def receive() -> bytes:
        return left.pop(0) if left else b""

    body = Body(receive, None)
    body.max_bytes = 1 << 20
    return Request("POST", "/", {"content-type": kind}, body)


def part(name: str, value: bytes, more: str = "") -> bytes:
    return f'--XX\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"


async def read(request: Request) -> tuple[Form, bytes]:
    with ExitStack() as resources:
        found = await read_form(request, resources)
        return found, b"" if found.file is None else found.file.read()


@settings(max_examples=50, deadline=None)
@given(fields, st.binary(max_size=200), st.lists(st.integers(1, 60), min_size=1, max_size=5))
async def test_a_form_is_the_same_however_it_is_cut(
    given_fields: list[tuple[str, str]], file: bytes, sizes: list[int]
) -> None:
    body = b"".join(part(name, value.encode()) for name, value in given_fields)
    body += part("file", file, '; filename="a.wav"') + b"--XX--\r\n"
    pieces: list[bytes] = []
    place = 0
    while place < len(body):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(body[place : place + size])
        place += size
    found, content = await read(form(pieces))
    assert content == file
    expected: dict[str, list[str]] = {}
    for name, value in given_fields:
        expected.setdefault(name, []).append(value)
    assert found.fields == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--XX",
        b"--XX--\r\n"[:4],
        b"no form",
        part("a", b"1"),
        part("file", b"1") * 2 + b"--XX--\r\n",
        part("a", b"1") * 65 + b"--XX--\r\n",
        part("a", bytes(300_000)) + b"--XX--\r\n",
        b"--XX\r\n" + b"a: b\r\n" * 1000,
        b"--XX\r\nx\x00y: z\r\n\r\n",
    ],
)
async def test_what_is_no_form_is_refused(body: bytes) -> None:
    with pytest.raises(Refused) as caught:
        await read(form([body]))
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "kind", ["", "application/json", "multipart/form-data", "multipart/mixed; boundary=XX", ";;=;"]
)
async def test_another_type_is_refused(kind: str) -> None:
    with pytest.raises(Refused) as caught:
        await read(form([part("a", b"1")], kind))
    assert caught.value.status == 415
    with pytest.raises(Refused):
        await read(form([part("a", b"1")], f"multipart/form-data; boundary={'x' * 500}"))


def word(text: str, start: float, end: float) -> dict[str, Any]:
    return {"word": text, "start": start, "end": end, "confidence": 1.0}


LONG = Utterance(
    "so it goes on and on " * 5,
    1.0,
    26.0,
    [word(w, i + 1.0, i + 1.9) for i, w in enumerate(["so", "it", "goes", "on", "and", "on"] * 4)],
)
SHORT = Utterance("Hello.", 3661.5, 3662.0, [])


def test_subtitles() -> None:
    srt = openai.answer("srt", [LONG, SHORT], 4000.0, "en", "transcribe", words=False)
    cues = re.findall(r"(\d+)\n(\S+) --> (\S+)\n(.+)\n\n", srt)
    assert [number for number, *_ in cues] == [str(n) for n in range(1, len(cues) + 1)]
    assert cues[0][1:3] == ("00:00:01,000", "00:00:06,900")
    assert cues[-1][1:] == ("01:01:01,500", "01:01:02,000", "Hello.")
    assert sum(len(said.split()) for *_, said in cues) == 25
    vtt = openai.answer("vtt", [SHORT], 4000.0, "en", "transcribe", words=False)
    assert vtt == "WEBVTT\n\n01:01:01.500 --> 01:01:02.000\nHello.\n\n"
    assert openai.answer("vtt", [], 1.0, "", "transcribe", words=False) == "WEBVTT\n\n"


def test_a_detailed_answer_has_all_that_clients_require() -> None:
    found = json.loads(openai.answer("verbose_json", [SHORT, LONG], 4000.1234, "en", "translate", words=True))
    assert (found["task"], found["language"], found["duration"]) == ("translate", "en", 4000.123)
    assert found["usage"] == {"type": "duration", "seconds": 4001}
    assert len(found["words"]) == 24
    required = "id seek start end text tokens temperature avg_logprob compression_ratio no_speech_prob"
    assert all(set(segment) == set(required.split()) for segment in found["segments"])


def test_an_utterance_without_a_known_end_has_one() -> None:
    message = {"text": "a", "start": 2.0, "end": 0.0, "words": [], "language": "de"}
    assert Utterance.read(message) == Utterance("a", 2.0, 3.0, [], "de")
    words = [word("a", 1.0, 1.5)]
    assert Utterance.read(message | {"end": 9.0, "words": words}) == Utterance("a", 1.0, 1.5, words, "de")


def test_the_language_of_a_recording_is_that_of_most_of_its_time() -> None:
    found = [Utterance("a", 0, 1, [], "en"), Utterance("b", 2, 4, [], "de"), Utterance("c", 5, 5.5, [], "en")]
    assert language_of(found) == "de"
    assert language_of([]) == ""


async def test_an_upload_that_cannot_be_stored_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "missing"))
    with pytest.raises(Refused, match="cannot be stored: No such file") as caught:
        await read(form([part("file", b"1") + b"--XX--\r\n"]))
    assert caught.value.status == 503
