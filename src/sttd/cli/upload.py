"""A client of sttd's HTTP interface for recordings (docs/protocols/openai.md), with blocking calls."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
import uuid
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sttd.errors import RecognitionError, Unavailable
from sttd.protocols.recording import Utterance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

PATH = "/v1/audio/transcriptions"
STREAM = {"stream": "true", "response_format": "verbose_json", "timestamp_granularities[]": "word"}
"""The fields of a form that ask for an event for each utterance, with the times of words."""
BLOCK = 1 << 16
LOADING = "the model is loading"
"""What `/readyz` says meanwhile."""
STANDSTILL_S = 600.0
"""Timeout for the next bytes. A recording waits behind live sessions."""
PATIENCE_S = 600.0
"""How long a daemon is asked again that has no room."""


@dataclass(slots=True)
class Found:
    """What was found in a recording."""

    utterances: list[Utterance] = field(default_factory=list)
    duration_s: float = 0.0


class Endpoint:
    """The HTTP interface of a daemon at an address like `http://host:8000`, `ws://host:3000/ws/stt` or `unix:/path`."""

    def __init__(self, address: str, token: str = "") -> None:
        """Raises Unavailable if the address cannot be used."""
        self.address = address
        self._token = token
        self._socket = address.removeprefix("unix:") if address.startswith("unix:") else ""
        try:
            url = urlsplit(address)
            self._host, self._port = url.hostname or "", url.port
        except ValueError as error:
            raise Unavailable(f"{address}: {error}") from None
        self._tls = url.scheme in ("https", "wss")
        if not self._socket and (url.scheme not in ("http", "https", "ws", "wss") or not self._host):
            raise Unavailable(f"{address}: an address is like http://127.0.0.1:8000, or unix:/path")
        prefix = "" if self._socket else url.path.removesuffix("/ws/stt").rstrip("/")
        self._path = f"{prefix}{PATH}"

    def transcribe(self, file: Path, options: Mapping[str, str], said: Callable[[Utterance], None]) -> Found:
        """Transcribe a file; `said` is called with each utterance. `options` are those of a session.

        Raises RecognitionError, naming the file, if it cannot be transcribed, and Unavailable if no daemon answers.
        """
        until = time.monotonic() + PATIENCE_S
        while True:
            with closing(self._connection()) as connection:
                answer = self._send(connection, file, {**options, **STREAM})
                if answer.status == HTTPStatus.OK:
                    return _read(file, answer, said)
                code, message = _error(answer)
                wait_s = float(answer.headers.get("Retry-After") or 0)
            if not wait_s or code == "no_model" or time.monotonic() > until:
                raise RecognitionError(f"{file}: {message}")
            time.sleep(wait_s)

    def _connection(self) -> http.client.HTTPConnection:
        if self._socket:
            return _UnixConnection(self._socket)
        kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        return kind(self._host, self._port, timeout=STANDSTILL_S)

    def _send(
        self, connection: http.client.HTTPConnection, file: Path, fields: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        boundary = uuid.uuid4().hex
        head, tail = _around(boundary, file.name, fields)
        try:
            with file.open("rb") as audio:
                size = len(head) + os.fstat(audio.fileno()).st_size + len(tail)
                headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(size)}
                if self._token:
                    headers["Authorization"] = f"Bearer {self._token}"
                try:
                    connection.connect()
                except OSError as error:
                    raise Unavailable(f"no sttd answers at {self.address}: {error}; is it running?") from None
                with suppress(BrokenPipeError, ConnectionResetError):  # refused early: the answer says why
                    connection.request("POST", self._path, _pieces(head, audio, tail), headers)
                return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or f"the connection to the daemon was cut ({error!r})"
            raise RecognitionError(f"{file}: {reason}") from None


def readiness(path: str) -> str:
    """Return why the daemon at a Unix socket has no text for anybody; empty if it has."""
    with closing(_UnixConnection(path)) as connection, suppress(OSError, http.client.HTTPException, ValueError):
        connection.request("GET", "/readyz")
        return str(json.loads(connection.getresponse().read())["reason"])
    return LOADING


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=STANDSTILL_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _around(boundary: str, name: str, fields: Mapping[str, str]) -> tuple[bytes, bytes]:
    """Return what is sent before a file and after it (RFC 7578)."""
    begin = f'--{boundary}\r\nContent-Disposition: form-data; name="'
    head = "".join(f'{begin}{key}"\r\n\r\n{value}\r\n' for key, value in fields.items())
    plain = "".join(letter if letter.isprintable() and letter not in '"\\' else "_" for letter in name)
    head += f'{begin}file"; filename="{plain}"\r\nContent-Type: application/octet-stream\r\n\r\n'
    return head.encode(errors="replace"), f"\r\n--{boundary}--\r\n".encode()


def _pieces(head: bytes, audio: Any, tail: bytes) -> Iterator[bytes]:
    yield head
    while block := audio.read(BLOCK):
        yield block
    yield tail


def _read(file: Path, answer: http.client.HTTPResponse, said: Callable[[Utterance], None]) -> Found:
    """Read the stream of events."""
    found = Found()
    try:
        for line in answer:
            if not line.startswith(b"data: "):
                continue
            event = json.loads(line.removeprefix(b"data: "))
            if "error" in event:
                raise RecognitionError(f"{file}: {event['error']['message']}")
            if event["type"] == "transcript.text.done":
                found.duration_s = float(event["usage"]["seconds"])
                return found
            text, words = event["delta"].strip(), event["words"]
            found.utterances.append(Utterance(text, event["start"], event["end"], words, event["language"]))
            said(found.utterances[-1])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise RecognitionError(f"{file}: the answer of the daemon was cut ({error!r})") from None
    raise RecognitionError(f"{file}: the answer of the daemon was cut")


def _error(answer: http.client.HTTPResponse) -> tuple[str, str]:
    """Return code and message of a refusal."""
    text = answer.read(BLOCK).decode(errors="replace").strip()
    try:
        error = json.loads(text)["error"]
        return str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        return "", f"the daemon refuses: {answer.status} {text[:500]}"
