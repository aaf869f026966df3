"""OpenAI's audio API against a real daemon: with OpenAI's own client, and with what no client should send."""

from __future__ import annotations

import io
import json
import re
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import openai
import pytest
import soundfile

from tests.support import (
    Clip,
    Daemon,
    at_16k_mono,
    finals,
    json_events,
    normalized,
    running_daemon,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

av: Any = pytest.importorskip("av")


@pytest.fixture(scope="module")
def vosk(still_models: Path) -> Iterator[Daemon]:
    with running_daemon(still_models, "--provider", "vosk") as daemon:
        yield daemon


def url(daemon: Daemon, path: str = "/v1/audio/transcriptions") -> str:
    return f"http://{daemon.address}{path}"


def sdk(daemon: Daemon, key: str = "unused", retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(base_url=url(daemon, "/v1"), api_key=key, max_retries=retries, timeout=60)


def wav(clip: Clip, seconds: int | None = None) -> bytes:
    """As `/ws/stt` would get it; or the first seconds alone."""
    file, samples = io.BytesIO(), np.frombuffer(at_16k_mono(clip), np.int16)
    samples = samples if seconds is None else samples[: seconds * 16000]
    soundfile.write(file, samples, 16000, format="WAV", subtype="PCM_16")
    return file.getvalue()


def post(daemon: Daemon, file: bytes | None, **fields: Any) -> httpx2.Response:
    headers = fields.pop("headers", {})
    files = {"file": ("x.wav", file)} if file is not None else {"other": ("x", b"")}
    return httpx2.post(url(daemon), files=files, data=fields, headers=headers, timeout=60)


def text(daemon: Daemon, file: bytes, **fields: Any) -> str:
    answer = post(daemon, file, **fields)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["text"])


# What a recording says

LONG = {"min_silence_ms": 1000, "max_utterance_ms": 28000}
"""The session options of recordings, which differ from those of live speech."""


@pytest.mark.parametrize("provider", ["whisper", "vosk"])
def test_the_text_is_that_of_a_live_session(
    provider: str, request: pytest.FixtureRequest, beckett: Clip, korean: list[Clip]
) -> None:
    """Whisper hears longer utterances with more care if nobody waits: tests/reliability/test_recordings.py."""
    daemon: Daemon = request.getfixturevalue(provider)
    clip = beckett if provider == "whisper" else korean[0]
    with daemon.json(**LONG) as client:
        wanted = " ".join(finals(json_events(client, at_16k_mono(clip))))
    assert wanted
    assert text(daemon, wav(clip)) == wanted


def test_all_forms_of_an_answer_by_openai_s_own_client(whisper: Daemon, two_cities: Clip) -> None:
    client = sdk(whisper)
    seconds = 15
    file = ("a.wav", wav(two_cities, seconds))
    create = client.audio.transcriptions.create
    plain = create(file=file, model="whisper-1")
    assert "best of times" in plain.text
    assert create(file=file, model="tiny.en", response_format="text").strip() == plain.text
    long = create(
        file=file, model="whisper-1", response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert (long.language, float(long.duration)) == ("en", seconds)
    assert long.segments
    assert long.words
    assert normalized(" ".join(word.word for word in long.words)) == normalized(long.text)
    assert [segment.id for segment in long.segments] == list(range(len(long.segments)))
    edges = [time for segment in long.segments for time in (segment.start, segment.end)]
    assert edges == sorted(edges)
    assert edges[-1] <= seconds + 0.1
    assert create(file=file, model="whisper-1", response_format="verbose_json").words is None
    subtitles = create(file=file, model="whisper-1", response_format="srt")
    cues = re.findall(r"(\d+)\n(\S+) --> (\S+)\n(.+)\n\n", subtitles)
    assert [int(number) for number, *_ in cues] == list(range(1, len(cues) + 1))
    assert all(begin < end and len(said) <= 90 for _, begin, end, said in cues)
    assert normalized(" ".join(said for *_, said in cues)) == normalized(plain.text)
    assert create(file=file, model="whisper-1", response_format="vtt").startswith("WEBVTT\n\n00:00:0")


def test_a_stream_of_events(whisper: Daemon, two_cities: Clip) -> None:
    events = list(
        sdk(whisper).audio.transcriptions.create(file=("a.wav", wav(two_cities)), model="whisper-1", stream=True)
    )
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    done = events[-1]
    assert done.type == "transcript.text.done"
    assert len(deltas) >= 2
    assert "".join(deltas) == done.text
    with pytest.raises(openai.APIError, match="not an audio file"):
        list(sdk(whisper).audio.transcriptions.create(file=("a", b"no audio"), model="whisper-1", stream=True))


def test_models(whisper: Daemon) -> None:
    client = sdk(whisper)
    assert [model.id for model in client.models.list()] == ["tiny.en", "faster_whisper", "whisper-1"]
    assert client.models.retrieve("tiny.en").owned_by == "sttd"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-9")
    assert caught.value.code == "model_not_found"


def test_a_client_of_ovos(whisper: Daemon, beckett: Clip) -> None:
    answer = httpx2.post(url(whisper, "/stt?lang=en-us"), content=wav(beckett), timeout=60)
    assert "fail" in answer.text.lower()


def encoded(clip: Clip, container: str, codec: str, rate: int, channels: int = 2) -> bytes:
    """The first seconds of the clip in another format, by PyAV."""
    file = io.BytesIO()
    layout = {1: "mono", 2: "stereo"}[channels]
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout)
        resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate)
        frame = av.AudioFrame.from_ndarray(clip.samples[: 5 * clip.rate, :1].T.copy(), format="s16", layout="mono")
        frame.sample_rate = clip.rate
        fifo = av.AudioFifo()
        for piece in resampler.resample(frame):
            fifo.write(piece)
        while (piece := fifo.read(stream.codec_context.frame_size or 1024, partial=True)) is not None:
            piece.pts = None
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("mp3", "libmp3lame", 44100),
        ("mp4", "aac", 44100),
        ("mov", "alac", 44100),
        ("ogg", "libopus", 48000),
        ("webm", "libopus", 48000),
        ("flac", "flac", 44100),
        ("wav", "pcm_s24le", 48000),
        ("wav", "pcm_f32le", 96000),
        ("wav", "adpcm_ima_wav", 22050),
        ("amr", "libopencore_amrnb", 8000),
        ("aiff", "pcm_s16be", 44100),
    ],
)
def test_any_media_file(whisper: Daemon, two_cities: Clip, container: str, codec: str, rate: int) -> None:
    found = text(whisper, encoded(two_cities, container, codec, rate, 1 if rate == 8000 else 2))
    assert "best of times" in found.lower()


def test_a_file_that_is_joined_of_two_formats(whisper: Daemon, two_cities: Clip) -> None:
    file = encoded(two_cities, "mp3", "libmp3lame", 44100) + encoded(two_cities, "mp3", "libmp3lame", 22050, channels=1)
    assert text(whisper, file).lower().count("best of times") == 2


@pytest.mark.parametrize("channels", [3, 8])
def test_many_channels(whisper: Daemon, two_cities: Clip, channels: int) -> None:
    file, mono = io.BytesIO(), two_cities.samples[: 5 * two_cities.rate, :1]
    soundfile.write(file, np.repeat(mono, channels, 1), two_cities.rate, format="WAVEX")
    assert "best of times" in text(whisper, file.getvalue()).lower()


def test_a_file_that_says_it_has_a_hundred_hours(whisper: Daemon, two_cities: Clip) -> None:
    """Only what is there counts."""
    file = bytearray(encoded(two_cities, "mp4", "aac", 44100))
    header = file.index(b"mvhd")
    scale = int.from_bytes(file[header + 16 : header + 20], "big")
    for box, place in ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24)):
        at = file.index(box) + place
        file[at : at + 4] = min(360_000 * scale, 0xFFFFFFF0).to_bytes(4, "big")
    answer = post(whisper, bytes(file), response_format="verbose_json").json()
    assert "best of times" in answer["text"].lower()
    assert answer["duration"] < 6


@pytest.mark.parametrize(("missing", "flac"), [(["av"], 200), (["av", "soundfile"], 415)])
def test_without_the_extra_media(
    missing: list[str], flac: int, still_models: Path, korean: list[Clip], tmp_path: Path
) -> None:
    """WAV and FLAC are read with the extra flac, WAV with none; other formats are told which one to install."""
    for module in missing:
        (tmp_path / f"{module}.py").write_text("raise ImportError")
    with running_daemon(still_models, "--provider", "vosk", PYTHONPATH=str(tmp_path)) as daemon:
        assert text(daemon, wav(korean[0]))
        statuses = {kind: post(daemon, encoded(korean[0], kind, codec, 44100)) for kind, codec in CODECS.items()}
    assert {kind: answer.status_code for kind, answer in statuses.items()} == {"flac": flac, "mp4": 415}
    assert "pip install 'sttd[media]'" in statuses["mp4"].json()["error"]["message"]


CODECS = {"flac": "flac", "mp4": "aac"}


# What cannot be used


def riff(
    rate: int, channels: int = 1, bits: int = 16, size: int = 1000, data: bytes = bytes(1000), tag: int = 1
) -> bytes:
    frame = channels * bits // 8
    head = tag.to_bytes(2, "little") + channels.to_bytes(2, "little") + rate.to_bytes(4, "little")
    head += (rate * frame & 0xFFFFFFFF).to_bytes(4, "little") + (frame & 0xFFFF).to_bytes(2, "little")
    head += bits.to_bytes(2, "little")
    return b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0" + head + b"data" + size.to_bytes(4, "little") + data


def matroska(streams: int) -> bytes:
    """A file of audio streams without audio. See RFC 9559; an element is an id, a size and data."""
    kind = b"\x83\x81\x02" + b"\x86\x8dA_PCM/INT/LIT" + b"\xe1\x86\xb5\x84" + b"\x46\x7a\x00\x00"
    numbers = [number.to_bytes(4, "big") for number in range(1, streams + 1)]
    entries = [b"\xd7\x84" + number + b"\x73\xc5\x84" + number + kind for number in numbers]
    tracks = b"".join(b"\xae" + (0x80 | len(entry)).to_bytes(1, "big") + entry for entry in entries)
    size = (1 << 56 | len(tracks)).to_bytes(8, "big")
    head = b"\x1a\x45\xdf\xa3\x8b\x42\x82\x88matroska" + b"\x18\x53\x80\x67\x01" + b"\xff" * 7
    cluster = b"\x1f\x43\xb6\x75\x83\xe7\x81\x00"
    return head + b"\x16\x54\xae\x6b" + size + tracks + cluster


PICTURE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0\x90wS\xde\0\0\0\0IEND\xaeB`\x82"
HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "a byte": b"R",
    "text": b"This is a text. " * 100,
    "zeros": bytes(100_000),
    "a picture": PICTURE,
    "a playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "a playlist of addresses": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.mp3\n",
    "a list of files": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "a session description": b"v=0\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
    "a manifest": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>',
    "a zip": b"PK\x03\x04" + bytes(200),
    "a program": b"\x7fELF" + bytes(500),
    "no channels": riff(16000, channels=0),
    "no rate": riff(0),
    "an unknown codec": riff(16000, tag=0x7777),
    "65535 channels": riff(16000, channels=65535, data=bytes(131070)),
    "MP3 without frames": b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(100),
    "ogg of nothing": b"OggS\0\x02" + bytes(50),
    "matroska of nothing": b"\x1a\x45\xdf\xa3\x01\xff\xff\xff\xff\xff\xff\xff" + bytes(100),
    "matroska in itself": b"\x1a\x45\xdf\xa3" * 5000,
    "100 000 streams": matroska(100_000),
    "mp4 of nothing": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\xff\xff\xff\xffmoov" + bytes(50),
    "mp4 in itself": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0\0\x10\0moov" * 2000,
    "flac without frames": b"fLaC\0\0\0\x22" + bytes(34),
    "flac with a huge picture": b"fLaC\0\0\0\x22" + bytes(34) + b"\x86\xff\xff\xff" + bytes(100),
    "amr of nothing": b"#!AMR\n",
    "aiff of nothing": b"FORM\xff\xff\xff\xffAIFF",
}
"""What gives an error."""
QUIET: dict[str, bytes] = {
    "4 GHz": riff(0xFFFFFFFF),
    "2 GHz": riff(0x7FFFFFFF, data=bytes(100_000)),
    "1 Hz": riff(1, data=bytes(40)),
    "a size that lies": riff(16000, size=0xFFFFFFF0),
    "no samples": riff(16000, size=0, data=b""),
    "one sample": riff(16000, size=2, data=bytes(2)),
    "half a sample": riff(16000, size=1, data=bytes(1)),
    "384 kHz": riff(384000, size=768000, data=bytes(768000)),
}
"""What gives no text, or an error."""


def test_hostile_files_get_an_error_and_touch_nobody(whisper: Daemon, beckett: Clip) -> None:
    process, files = whisper.process.pid, whisper.files()
    got = {}
    for name, file in (HOSTILE | QUIET).items():
        answer = post(whisper, file)
        got[name] = f"{answer.status_code} {answer.text[:100]}"
        if name in HOSTILE:
            assert answer.status_code == 400, (name, answer.text)
            assert answer.json()["error"]["type"] == "invalid_request_error"
        else:
            assert answer.status_code in (200, 400), (name, answer.text)
            assert answer.json().get("text", "") == "", (name, answer.text)
    for cut in (10, 100, 1000, 20000):
        answer = post(whisper, encoded(beckett, "mp3", "libmp3lame", 44100)[:cut])
        assert answer.status_code in (200, 400)
    print(*(f"{name}: {what}" for name, what in got.items()), sep="\n")
    assert whisper.process.poll() is None
    assert whisper.process.pid == process
    wait_until(lambda: whisper.files() <= files + 2, 10, "files to be closed")
    assert "fail" in text(whisper, wav(beckett)).lower()
    assert "Traceback" not in whisper.log()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "xml"}, "response_format"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": "2"}, "temperature"),
        ({"timestamp_granularities[]": "letter"}, "timestamp_granularities"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(
    whisper: Daemon, beckett: Clip, fields: dict[str, str], param: str
) -> None:
    answer = post(whisper, wav(beckett), **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_a_form_that_is_none(whisper: Daemon) -> None:
    assert post(whisper, None).json()["error"]["param"] == "file"
    no_form = httpx2.post(url(whisper), json={"file": "x"})
    assert no_form.status_code == 415
    kind = {"content-type": "multipart/form-data; boundary=x"}
    for body in (
        b"",
        b"--x\r\n",
        b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\nabc",
        b"hello",
        b"--y\r\n\r\n",
    ):
        answer = httpx2.post(url(whisper), content=body, headers=kind)
        assert answer.status_code == 400, body
        assert answer.json()["error"]["code"] == "form"
    many = b"".join(b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' for _ in range(100)) + b"--x--\r\n"
    assert httpx2.post(url(whisper), content=many, headers=kind).status_code == 400
    long = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + bytes(300_000) + b"\r\n--x--\r\n"
    assert httpx2.post(url(whisper), content=long, headers=kind).status_code == 400


def test_limits(models: Path, beckett: Clip, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text('kitchen = "a-token-of-many-letters"')
    settings = {"uploads": 1, "upload_bytes": 1_000_000, "upload_s": 3}
    limits = [argument for key, value in settings.items() for argument in ("--set", f"limits.{key}={value}")]
    with running_daemon(models, *limits, "--set", f"access.tokens_file={tokens}") as daemon:
        file = ("a.wav", wav(beckett))
        with pytest.raises(openai.AuthenticationError):
            sdk(daemon).audio.transcriptions.create(file=file, model="whisper-1")
        client = sdk(daemon, key="a-token-of-many-letters")
        with pytest.raises(openai.APIStatusError) as caught:
            client.audio.transcriptions.create(file=("a.wav", riff(16000, size=1000)), model="whisper-2")
        assert (caught.value.status_code, caught.value.code) == (404, "model_not_found")
        with pytest.raises(openai.APIStatusError) as caught:
            client.audio.transcriptions.create(file=("a.wav", bytes(2_000_000)), model="whisper-1")
        assert (caught.value.status_code, caught.value.code) == (413, "body_bytes")
        long = riff(16000, size=200_000, data=bytes(200_000))
        with pytest.raises(openai.APIStatusError) as caught:
            client.audio.transcriptions.create(file=("a.wav", long), model="whisper-1")
        assert (caught.value.status_code, caught.value.code) == (413, "upload_s")
        with socket.create_connection(daemon.host_port) as slow:
            slow.sendall(request_of(wav(beckett), "Authorization: Bearer a-token-of-many-letters\r\n")[:-1])
            time.sleep(0.3)
            with pytest.raises(openai.InternalServerError) as refused:
                client.audio.transcriptions.create(file=file, model="whisper-1")
            assert refused.value.status_code == 503
            assert refused.value.response.headers["retry-after"] == "5"


def test_pages(whisper: Daemon, beckett: Clip) -> None:
    here, elsewhere = {"Origin": "http://localhost:9000"}, {"Origin": "https://example.com"}
    asked = {"Access-Control-Request-Method": "POST"}
    answer = httpx2.options(url(whisper), headers=here | asked)
    assert answer.headers["access-control-allow-origin"] == here["Origin"]
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    assert httpx2.options(url(whisper), headers=elsewhere | asked).status_code == 403
    assert post(whisper, wav(beckett), headers=here).headers["access-control-allow-origin"] == here["Origin"]
    assert post(whisper, wav(beckett), headers=elsewhere).status_code == 403


def children(daemon: Daemon) -> list[str]:
    """Of all its threads."""
    threads = Path(f"/proc/{daemon.process.pid}/task").iterdir()
    return [child for thread in threads for child in (thread / "children").read_text().split()]


def request_of(file: bytes, more: str = "") -> bytes:
    """A whole request with a file, as bytes."""
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + file + b"\r\n--x--\r\n"
    head = "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x"
    return f"{head}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_a_client_that_leaves_ends_its_transcription(whisper: Daemon, two_cities: Clip) -> None:
    long = riff(16000, size=0xFFFFFFF0, data=at_16k_mono(two_cities) * 20)
    with socket.create_connection(whisper.host_port) as client:
        client.sendall(request_of(long))
        wait_until(lambda: whisper.status()["sessions"] == 1, 20, "the session")
        assert children(whisper)
    wait_until(lambda: whisper.status()["sessions"] == 0 and not children(whisper), 5, "the end of the session")


def test_a_stop_in_the_middle_is_an_error_and_no_shorter_text(models: Path, two_cities: Clip) -> None:
    long = riff(16000, size=0xFFFFFFF0, data=at_16k_mono(two_cities) * 20)
    with running_daemon(models) as daemon, socket.create_connection(daemon.host_port, timeout=30) as client:
        client.sendall(request_of(long))
        wait_until(lambda: daemon.status()["sessions"] == 1, 20, "the session")
        daemon.process.terminate()
        answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "stopping"
        assert daemon.process.wait(20) == 0
