"""The groq provider: sends each utterance as a file over HTTPS (https://console.groq.com/docs/speech-to-text)."""

from __future__ import annotations

import json
import logging
import math
import random
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import trio

from sttd.audio.encode import Upload, encoded
from sttd.audio.format import RATE, SAMPLE_BYTES, seconds
from sttd.clouds.base import Cloud, finite, printable
from sttd.clouds.base_url import BaseUrl
from sttd.clouds.budget import Budget
from sttd.config.credentials import api_key
from sttd.engines import languages
from sttd.engines.base import Transcript, base_language
from sttd.errors import CloudError
from sttd.events import Word
from sttd.recognizers.base import CloudRecognizer, cloud_failure, final_placed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    import httpx2

    from sttd.config.config import Config, SessionOptions
    from sttd.recognizers.base import CloudSupervisor

logger = logging.getLogger(__name__)

MAX_UPLOAD_BYTES = 25_000_000
MAX_PROMPT_CHARACTERS = 896
MAX_ANSWER_BYTES = 1 << 20
RETRIES = 2
FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 8.0
CONNECT_S = 5.0
CONTEXT_S = 3.0
"""After a longer silence the text before it is not sent as context."""

MIN_BYTES = RATE // 10 * SAMPLE_BYTES
"""A shorter utterance holds no word, and is not sent."""

GAP = bytes(RATE // 4 * SAMPLE_BYTES)
"""Silence between utterances in one request."""

MAX_HELD_S = 30.0
"""Maximum audio of the utterances that wait for the quota."""

_REASONS = {
    400: "rejected the request",
    401: "rejected the API key",
    402: "says that the account has no credit",
    403: "does not allow this request for the account",
    404: "does not know the model",
    413: "says that the recording is too long",
    422: "rejected the recording",
    429: "says that the account has reached its rate limit",
    498: "has no free capacity",
}
_RETRIED = {408, 409, 429, 498}
_NOT_RETRIED = {400, 401, 402, 403, 404, 413, 422}


class Groq(Cloud):
    """One account at Groq, or at another server at `groq.base_url`."""

    name: ClassVar[str] = "groq"
    title: ClassVar[str] = "Groq"
    library: ClassVar[str] = "httpx2"
    finds_endpoints: ClassVar[bool] = False
    languages: ClassVar[Sequence[str]] = languages.WHISPER

    def __init__(self, config: Config) -> None:
        self._settings = config.groq
        self._key = api_key(self.name, config.groq.key_file)
        self.patience = config.groq.deadline_s
        self.model = config.model or config.groq.model
        self._base_url = BaseUrl("groq.base_url", config.groq.base_url)
        self.destination = self._base_url.host
        self.budget = Budget(config.groq.requests_per_minute, config.groq.seconds_per_hour, config.groq.min_billed_s)
        try:
            self._client: httpx2.AsyncClient | None = self._new_client()
        except Exception as error:
            self._client = None
            self.problem = f"{self.title} cannot be reached with the proxy settings in the environment: {error}"

    def state(self) -> dict[str, float]:
        """See Cloud."""
        now = trio.current_time()
        return {
            "requests_left": round(self.budget.requests.level(now), 1),
            "audio_seconds_left": round(self.budget.audio.level(now)),
        }

    async def aclose(self) -> None:
        """See Cloud."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    @asynccontextmanager
    async def recognizer(self, options: SessionOptions, supervisor: CloudSupervisor) -> AsyncIterator[CloudRecognizer]:
        """See Cloud."""
        async with trio.open_nursery() as nursery:
            recognizer = GroqRecognizer(self, options, supervisor, nursery)
            yield recognizer
            await recognizer.drain()
            nursery.cancel_scope.cancel()

    async def transcribe(self, pcm: bytes, options: SessionOptions, context: str, deadline: float) -> Transcript:
        """Return the text of an utterance (PCM, 16-bit, 16 kHz, mono). `context` is the text before it.

        Raises CloudError if there is no answer by `deadline`, in Trio's clock, or the request fails.
        """
        with trio.move_on_at(deadline):
            upload = await trio.to_thread.run_sync(encoded, pcm)
            if len(upload.content) > MAX_UPLOAD_BYTES:
                raise CloudError(f"{self.title} accepts at most {MAX_UPLOAD_BYTES // 1_000_000} MB per request")
            return transcript_of(await self._ask(upload, self._fields(options, context)))
        raise CloudError(f"{self.title} did not answer in {self.patience:g} s")

    def _fields(self, options: SessionOptions, context: str) -> dict[str, Any]:
        prompt = f"{self._settings.prompt} {context}".strip()[-MAX_PROMPT_CHARACTERS:]
        fields = {
            "model": self.model,
            "temperature": f"{self._settings.temperature:g}",
            "response_format": "verbose_json" if options.words else "json",
            "language": base_language(options.language),
            "prompt": prompt,
        }
        wanted: dict[str, Any] = {name: value for name, value in fields.items() if value}
        if options.words:
            wanted["timestamp_granularities[]"] = ["word", "segment"]
        return wanted

    async def _ask(self, upload: Upload, fields: Mapping[str, Any]) -> bytes:
        """Return the answer's body. Retries as the API's documentation and Groq's own client do."""
        for left in range(RETRIES, -1, -1):
            pause = min(FIRST_PAUSE_S * 2 ** (RETRIES - left), MAX_PAUSE_S) * random.uniform(0.75, 1.0)  # noqa: S311
            try:
                return await self._ask_once(upload, fields)
            except _Retry as retry:
                pause = retry.after if retry.after is not None else pause
                if not left or trio.current_time() + pause >= trio.current_effective_deadline():
                    raise CloudError(str(retry)) from None
            await trio.sleep(pause)
        raise AssertionError

    def _new_client(self) -> httpx2.AsyncClient:
        import httpx2

        return httpx2.AsyncClient(
            verify=self._base_url.tls or False,
            timeout=httpx2.Timeout(None, connect=CONNECT_S),
            headers={"Authorization": f"Bearer {self._key}"},
            proxy=self._base_url.proxy() or None,
            trust_env=False,  # else httpx2 rejects an unusable proxy even if it is for other addresses
        )

    async def _ask_once(self, upload: Upload, fields: Mapping[str, Any]) -> bytes:
        import httpx2

        if self._client is None:
            raise CloudError(self.problem, permanent=True)
        url = f"{self._settings.base_url.rstrip('/')}/audio/transcriptions"
        files = {"file": (upload.name, upload.content, upload.media_type)}
        try:
            async with self._client.stream("POST", url, data=dict(fields), files=files) as response:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        raise CloudError(f"{self.title} sent an answer of more than {MAX_ANSWER_BYTES} bytes")
        except httpx2.RequestError as error:
            raise _Retry(f"{self.title} cannot be reached ({type(error).__name__})") from error
        if response.status_code == 200:
            return bytes(body)
        raise self._fault(response.status_code, response.headers, bytes(body))

    def _fault(self, status: int, headers: Mapping[str, str], body: bytes) -> Exception:
        text = body.decode(errors="replace").replace(self._key, "[key]")[:500]
        logger.warning("groq: status=%d request=%s body=%r", status, headers.get("x-request-id", ""), text)
        message = f"{self.title} {_REASONS.get(status, 'reported an error')} ({status})"
        wanted = {"true": status not in _NOT_RETRIED, "false": False}
        if not wanted.get(headers.get("x-should-retry", ""), status in _RETRIED or status >= 500):
            return CloudError(message, permanent=status in (401, 402, 403, 404))
        try:
            after = float(headers.get("retry-after", ""))
        except ValueError:
            after = None
        return _Retry(message, after if after is not None and 0 < after < math.inf else None)


class _Retry(Exception):
    """A failure after which a retry may succeed, `after` the seconds that the server names, if it does."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class GroqRecognizer(CloudRecognizer):
    """Gathers an utterance and sends it at its end.

    While the account's quota allows no further request, utterances wait, and are then sent in one request.
    """

    def __init__(
        self, cloud: Groq, options: SessionOptions, supervisor: CloudSupervisor, nursery: trio.Nursery
    ) -> None:
        self._cloud = cloud
        self._options = options
        self._supervisor = supervisor
        self._nursery = nursery
        self._at = 0.0
        self._audio = bytearray()
        self._held: list[tuple[float, bytes]] = []
        self._said = ""
        self._silent_from = 0.0
        self._sending: trio.Event | None = None

    async def start(self, at: float) -> None:
        """See Recognizer."""
        self._at = at
        self._audio.clear()
        if at - self._silent_from > CONTEXT_S:
            self._said = ""

    async def accept(self, pieces: Sequence[bytes], *, confidence: float = 1.0) -> None:  # noqa: ARG002
        """See Recognizer."""
        for piece in pieces:
            self._audio += piece

    async def finish(self, *, settled: bool = False, confidence: float = 1.0) -> None:  # noqa: ARG002 - nothing is decoded before the end
        """See Recognizer."""
        length = seconds(self._audio)
        self._silent_from = self._at + length
        if len(self._audio) < MIN_BYTES:
            return
        utterance = self._at, bytes(self._audio)
        deadline = trio.current_time() + self._cloud.patience
        if self._held and self._held_s() + length < MAX_HELD_S:
            self._held.append(utterance)
            return
        await self.drain()
        now = trio.current_time()
        if self._cloud.budget.wait(length, now) == 0:
            await self._send([utterance], deadline)
            return
        self._held.append(utterance)
        self._sending = trio.Event()
        self._nursery.start_soon(self._send_held, self._sending, deadline)

    async def _send_held(self, sent: trio.Event, deadline: float) -> None:
        """Send the waiting utterances when the quota allows it, or else after half of `groq.deadline_s`: the quota here
        is an estimate, and only the server knows the account's limits."""
        with trio.move_on_at(deadline - self._cloud.patience / 2):
            while pause := self._cloud.budget.wait(self._held_s(), trio.current_time()):  # noqa: ASYNC110
                await trio.sleep(pause)
        utterances = self._held.copy()
        self._held.clear()
        try:
            await self._send(utterances, deadline, late=True)
        except Exception as error:
            await self._supervisor.rescue(cloud_failure(self._cloud.title, error), utterances)
        finally:
            self._sending = None
            sent.set()

    async def drain(self) -> None:
        """See CloudRecognizer."""
        if self._sending is not None:
            await self._sending.wait()

    def _held_s(self) -> float:
        return sum(seconds(pcm) for _at, pcm in self._held)

    async def _send(self, utterances: Sequence[tuple[float, bytes]], deadline: float, *, late: bool = False) -> None:
        pcm, anchors = bytearray(), []
        for at, utterance in utterances:
            pcm += GAP if pcm else b""
            anchors.append((seconds(pcm), at))
            pcm += utterance
        self._cloud.budget.take(seconds(pcm), trio.current_time())
        found = await self._cloud.transcribe(bytes(pcm), self._options, self._said, deadline)
        self._supervisor.cloud_answered()
        self._said = f"{self._said} {found.text}".strip()[-MAX_PROMPT_CHARACTERS:]
        if found.text:
            self._supervisor.emit_from_cloud(replace(final_placed(found, anchors), late=late))

    def take_pending(self) -> tuple[float, bytes]:
        """See CloudRecognizer."""
        pcm = bytes(self._audio)
        self._audio.clear()
        return self._at, pcm


def transcript_of(body: bytes) -> Transcript:
    """Return the transcript in an answer of the format `json` or `verbose_json`, without words if they are invalid.

    Raises CloudError if there is no text.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("text"), str):
        logger.warning("groq: invalid answer (%d bytes)", len(body))
        raise CloudError(f"{Groq.title} sent an invalid answer")
    words: tuple[Word, ...] = ()
    try:
        segments = answer.get("segments") or ()
        words = tuple(_word(word, segments) for word in answer.get("words") or ())
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        logger.warning("groq: invalid words: %r", error)
    return Transcript(printable(answer["text"]), words)


def _word(word: Mapping[str, Any], segments: Sequence[Mapping[str, Any]]) -> Word:
    start, end = finite(word["start"]), finite(word["end"])
    return Word(printable(str(word["word"])), start, end, _confidence(segments, start))


def _confidence(segments: Sequence[Mapping[str, Any]], at: float) -> float:
    """Return the mean token probability of the segment at the time `at`: Groq sends none for single words."""
    for segment in segments:
        if segment["start"] <= at <= segment["end"]:
            return round(math.exp(min(0.0, finite(segment["avg_logprob"]))), 3)
    return 1.0
