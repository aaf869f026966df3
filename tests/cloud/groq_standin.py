"""Groq's transcription endpoint as its documentation and its Python client describe it, with a real model behind it."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import soundfile
import trio

from tests.cloud.standin import Certificates, Standin
from tests.support import KEY

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = {"model", "language", "prompt", "temperature", "response_format", "timestamp_granularities[]", "file"}
TYPES = {".flac": "audio/flac", ".wav": "audio/wav"}
ERRORS: dict[int, dict[str, Any]] = {
    401: {"message": "Invalid API Key", "type": "invalid_request_error", "code": "invalid_api_key"},
    402: {"message": "Payment Required", "type": "invalid_request_error"},
    413: {"message": "Request Entity Too Large", "type": "invalid_request_error"},
    429: {
        "message": "Rate limit reached for model `whisper-large-v3-turbo` in organization `org_secret` on requests per "
        "minute (RPM): Limit 20, Used 20, Requested 1. Please try again in 1s.",
        "type": "requests",
        "code": "rate_limit_exceeded",
    },
    500: {"message": "Internal Server Error", "type": "internal_server_error"},
    503: {"message": "Service Unavailable", "type": "service_unavailable"},
}


@dataclass
class Status:
    """Answer with an error, as documented."""

    code: int
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Slow:
    """Answer late."""

    seconds: float


class Drop:
    """Close the connection in the middle of the request."""


@dataclass
class Body:
    """Answer 200 with something else."""

    content: bytes


@dataclass
class Seen:
    """One request: its fields, the file's name, and seconds of audio."""

    fields: dict[str, list[str]]
    filename: str
    seconds: float
    connection: int


class GroqStandin(Standin):
    """`POST /openai/v1/audio/transcriptions`."""

    def __init__(self, certificates: Certificates, model: Path) -> None:
        super().__init__(certificates)
        from faster_whisper import WhisperModel

        self._model = WhisperModel(str(model), device="cpu", compute_type="int8", cpu_threads=1)
        self.seen: list[Seen] = []
        self.connections = 0

    @property
    def base_url(self) -> str:
        return f"https://127.0.0.1:{self.port}/openai/v1"

    async def serve(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self.connections += 1
        number = self.connections
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                chunk = await stream.receive_some(65536)
                if not chunk:
                    return
                data += chunk
            head, _, data = data.partition(b"\r\n\r\n")
            lines = head.decode("ascii").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            length = int(headers["content-length"])
            while len(data) < length and b'name="file"' not in data:
                chunk = await stream.receive_some(65536)
                if not chunk:
                    return
                data += chunk
            language = re.search(rb'name="language"\r\n\r\n(\w+)', data)
            fault = self.next_fault(language[1].decode() if language else "")
            while len(data) < length:
                chunk = await stream.receive_some(65536)
                if not chunk:
                    return
                data += chunk
                if isinstance(fault, Drop):
                    await trio.aclose_forcefully(stream)
                    return
            body, data = data[:length], data[length:]
            if isinstance(fault, Drop):
                await trio.aclose_forcefully(stream)
                return
            await self._answer(stream, *await self._respond(lines[0], headers, body, fault, number))

    async def _respond(
        self, request: str, headers: dict[str, str], body: bytes, fault: object, connection: int
    ) -> tuple[int, dict[str, str], bytes]:
        self.expect(request == "POST /openai/v1/audio/transcriptions HTTP/1.1", request)
        self.expect(len(body) <= 25_000_000, "an upload of more than 25 MB")
        if headers.get("authorization") != f"Bearer {KEY}":
            fault = Status(401)
        if isinstance(fault, Status):
            return fault.code, {"x-request-id": "req_secret", **fault.headers}, error_body(fault.code)
        if isinstance(fault, Body):
            return 200, {}, fault.content
        if isinstance(fault, Slow):
            await trio.sleep(fault.seconds)
        fields, filename, content = self._multipart(headers["content-type"], body)
        samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
        self.expect((rate, samples.shape[1]) == (16000, 1), f"audio of {rate} Hz, {samples.shape[1]} channels")
        self.expect(len(samples) >= 160, "a file shorter than 0.01 s")
        self.seen.append(Seen(fields, filename, len(samples) / rate, connection))
        answer = await trio.to_thread.run_sync(self._transcribe, samples[:, 0], fields)
        return 200, {}, json.dumps(answer).encode()

    def _multipart(self, content_type: str, body: bytes) -> tuple[dict[str, list[str]], str, bytes]:
        boundary = re.fullmatch(r"multipart/form-data; boundary=([\w'()+,./:=?-]+)", content_type)
        assert boundary, content_type
        fields: dict[str, list[str]] = {}
        filename, content = "", b""
        parts = body.split(b"--" + boundary[1].encode())
        assert parts[0] == b""
        assert parts[-1].strip() == b"--"
        for part in parts[1:-1]:
            head, _, value = (
                part.strip(b"\r\n").partition(b"\r\n\r\n")
                if b"filename" not in part[:200]
                else (
                    part[2:].partition(b"\r\n\r\n")[0],
                    b"",
                    part[2:].partition(b"\r\n\r\n")[2][:-2],
                )
            )
            name = re.search(rb'; name="([^"]+)"', head)
            assert name, head
            key = name[1].decode()
            self.expect(key in FIELDS, f"the field {key}")
            if key == "file":
                found = re.search(rb'filename="([^"]+)"', head)
                assert found, head
                filename, content = found[1].decode(), value
                media = re.search(rb"Content-Type: (\S+)", head, re.IGNORECASE)
                expected = next((kind for ending, kind in TYPES.items() if filename.endswith(ending)), None)
                self.expect(media and media[1].decode().replace("x-wav", "wav") == expected, f"{filename}: {head!r}")
            else:
                fields.setdefault(key, []).append(value.decode())
        self.expect(fields.get("model"), "no model")
        self.expect(content, "no file")
        self.expect(len(fields.get("prompt", [""])[0]) <= 896, "a prompt of more than 896 characters")
        form = fields.get("response_format", ["json"])[0]
        self.expect(form in ("json", "text", "verbose_json"), f"response_format {form}")
        self.expect(
            "timestamp_granularities[]" not in fields or form == "verbose_json", "granularities need verbose_json"
        )
        return fields, filename, content

    def _transcribe(self, samples: Any, fields: dict[str, list[str]]) -> dict[str, Any]:
        wanted = fields.get("timestamp_granularities[]", [])
        segments, info = self._model.transcribe(
            samples, language="en", word_timestamps="word" in wanted, condition_on_previous_text=False
        )
        found = list(segments)
        answer: dict[str, Any] = {"text": "".join(segment.text for segment in found), "x_groq": {"id": "req_secret"}}
        if fields.get("response_format") == ["verbose_json"]:
            answer |= {"task": "transcribe", "language": "English", "duration": info.duration}
            answer["segments"] = [
                {
                    "id": segment.id,
                    "start": segment.start,
                    "end": segment.end,
                    "text": segment.text,
                    "avg_logprob": segment.avg_logprob,
                    "compression_ratio": segment.compression_ratio,
                    "no_speech_prob": segment.no_speech_prob,
                }
                for segment in found
            ]
            answer["words"] = [
                {"word": word.word.strip(), "start": float(word.start), "end": float(word.end)}
                for segment in found
                for word in segment.words or ()
            ]
        return answer

    async def _answer(
        self, stream: trio.SSLStream[trio.SocketStream], status: int, headers: dict[str, str], body: bytes
    ) -> None:
        lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        await stream.send_all("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def error_body(status: int) -> bytes:
    return json.dumps({"error": ERRORS[status]}).encode()
