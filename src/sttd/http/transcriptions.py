"""OpenAI's audio API over sttd's sessions: a recording is uploaded, and its text is the answer."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

import trio

from sttd.events import Ending, Problem
from sttd.http.media import decoded
from sttd.http.messages import Refused, Request, Response
from sttd.http.multipart import Form, read_file, read_form
from sttd.http.routes import Need, Route
from sttd.protocols import openai
from sttd.protocols.recording import Recording, Utterance, language_of
from sttd.wires.upload import TooLong, UploadChannel

if TYPE_CHECKING:
    from sttd.config.config import LimitsConfig
    from sttd.http.admission import Admission
    from sttd.http.messages import Send
    from sttd.providers.base import Provider

ServeRecording = Callable[[Recording, str, UploadChannel], Awaitable[None]]
"""Called with the options of the session, as in a URL."""

USUAL_MODEL = "whisper-1"
"""The name that programs ask for if nobody tells them another one."""
STATUS = {
    Problem.OPTION: HTTPStatus.BAD_REQUEST,
    Problem.NO_MODEL: HTTPStatus.SERVICE_UNAVAILABLE,
    Problem.MODEL: HTTPStatus.SERVICE_UNAVAILABLE,
    Problem.STALLED: HTTPStatus.SERVICE_UNAVAILABLE,
    Problem.PROVIDER: HTTPStatus.BAD_GATEWAY,
    Problem.QUOTA: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
}
"""The status of an answer by what failed in the session; of what is not here: 500."""
PATHS = ("/v1/audio/transcriptions", "/v1/audio/translations", "/v1/models", "/v1/models/", "/stt")
PREFLIGHT = {
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, *",
    "Access-Control-Max-Age": "600",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client asks for."""

    kind: str
    words: bool
    stream: bool
    translate: bool
    options: dict[str, str]


class Transcriptions:
    """Answers the requests of OpenAI's clients, and of OVOS."""

    def __init__(self, provider: Provider, admission: Admission, serve_recording: ServeRecording) -> None:
        self._provider = provider
        self._admission = admission
        self._serve_recording = serve_recording
        self._created = int(time.time())

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        session = partial(Route, need=Need.SESSION, deadline_s=float("inf"))
        openai_session = partial(session, told=_told)
        uploads = zip(PATHS, (self._transcribe, self._translate), strict=False)
        return (
            *(openai_session("POST", path, handler) for path, handler in uploads),
            *(Route("OPTIONS", path, self._preflight, Need.PAGE) for path in PATHS),
            Route("GET", "/v1/models", self._models, Need.TOKEN, told=_told),
            Route("GET", "/v1/models/", self._model, Need.TOKEN, told=_told),
            session("POST", "/stt", self._ovos),
        )

    # Models

    @property
    def _names(self) -> list[str]:
        provider = self._provider
        name = provider.model or provider.config.model or provider.name
        return list(dict.fromkeys((name, provider.name, USUAL_MODEL)))

    def _about(self, name: str) -> dict[str, Any]:
        languages = list(self._provider.languages)
        return {"id": name, "object": "model", "created": self._created, "owned_by": "sttd", "languages": languages}

    async def _models(self, request: Request) -> Response:  # noqa: ARG002
        return Response.json(HTTPStatus.OK, {"object": "list", "data": [self._about(name) for name in self._names]})

    async def _model(self, request: Request) -> Response:
        name = request.path.removeprefix("/v1/models/")
        self._check_model(name)
        return Response.json(HTTPStatus.OK, self._about(name))

    def _check_model(self, name: str) -> None:
        if name and name not in self._names:
            message = f"The model {name[:100]!r} is not served here; served are {', '.join(self._names)}."
            raise Refused(HTTPStatus.NOT_FOUND, "model_not_found", message)

    # Recordings

    async def _preflight(self, request: Request) -> Response:
        return Response(HTTPStatus.OK, "", {**PREFLIGHT, **_for_page(request)})

    async def _transcribe(self, request: Request) -> Response:
        return await self._answer(request, translate=False)

    async def _translate(self, request: Request) -> Response:
        return await self._answer(request, translate=True)

    async def _answer(self, request: Request, *, translate: bool) -> Response:
        limits = self._admission.limits
        request.resources.enter_context(self._admission.upload())
        request.body.max_bytes = limits.upload_bytes
        form = await read_form(request, request.resources)
        self._check_model(form.first("model"))
        wanted = _wanted(form, translate=translate)
        if form.file is None:
            raise _bad("file", "There is no file in the form; its field is named file.")
        job = partial(_Job, self._serve_recording, form.file, wanted.options, request.peer, limits)
        headers = _for_page(request)
        if wanted.stream:
            stream = partial(_stream, request, job(), words=wanted.words)
            return Response(HTTPStatus.OK, stream, headers, "text/event-stream")
        done = job()
        await request.unless_left(done.run)
        language = "en" if translate else wanted.options.get("language") or language_of(done.found)
        task = "translate" if translate else "transcribe"
        body = openai.answer(
            wanted.kind, done.found, done.heard_s, language or self._only_language(), task, wanted.words
        )
        return Response(HTTPStatus.OK, body, headers, openai.FORMATS[wanted.kind])

    def _only_language(self) -> str:
        languages = self._provider.languages
        return languages[0] if len(languages) == 1 else ""

    async def _ovos(self, request: Request) -> Response:
        """Answer a client of ovos-stt-http-server: a WAV file in, text out."""
        limits = self._admission.limits
        request.resources.enter_context(self._admission.upload())
        request.body.max_bytes = limits.upload_bytes
        file = await read_file(request, request.resources)
        language = dict(parse_qsl(request.query)).get("lang", "")
        options = {"language": language} if language and language != "auto" else {}
        job = _Job(self._serve_recording, file, options, request.peer, limits)
        await request.unless_left(job.run)
        return Response(HTTPStatus.OK, " ".join(utterance.text for utterance in job.found), _for_page(request))


class _Job:
    """The transcription of one recording."""

    def __init__(
        self,
        serve: ServeRecording,
        file: IO[bytes],
        options: dict[str, str],
        peer: str,
        limits: LimitsConfig,
    ) -> None:
        self.found: list[Utterance] = []
        self.heard_s = 0.0
        self._serve = serve
        self._file = file
        self._options = options
        self._peer = peer
        self._limits = limits
        self._failed: Refused | None = None

    async def run(self, said: Callable[[Utterance], Awaitable[None]] | None = None) -> None:
        """Transcribe; `said` is called with each utterance. Raises Refused if anything fails."""
        messages, heard = trio.open_memory_channel[str](0)
        async with decoded(self._file) as decoder:
            channel = UploadChannel(decoder.next_piece, messages, self._peer, self._limits.upload_s)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run_session, channel, messages)
                async for message in heard:
                    await self._take(json.loads(message), said)
        self.heard_s = channel.heard_s
        self._check(channel)

    async def _run_session(self, channel: UploadChannel, messages: trio.MemorySendChannel[str]) -> None:
        with messages:
            await self._serve(Recording(), urlencode(self._options), channel)

    async def _take(self, message: dict[str, Any], said: Callable[[Utterance], Awaitable[None]] | None) -> None:
        if "code" in message:
            problem = Problem(message["code"])
            status = STATUS.get(problem, HTTPStatus.INTERNAL_SERVER_ERROR)
            retry = {"Retry-After": "5"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
            self._failed = self._failed or Refused(status, problem.value, message["message"], retry)
            return
        self.found.append(Utterance.read(message))
        if said is not None:
            await said(self.found[-1])

    def _check(self, channel: UploadChannel) -> None:
        if isinstance(channel.failure, TooLong):
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "upload_s", f"{channel.failure}.")
        if channel.failure is not None:
            raise channel.failure
        if self._failed is not None:
            raise self._failed
        if channel.ending is Ending.GOING_AWAY:
            raise Refused.busy("stopping", "sttd is stopping; try again.")


async def _stream(request: Request, job: _Job, send: Send, *, words: bool) -> None:
    """Send the text as it is found, as server-sent events. `words`: with the times of words."""

    async def say(utterance: Utterance) -> None:
        before = " " if len(job.found) > 1 else ""
        delta: dict[str, object] = {"type": "transcript.text.delta", "delta": before + utterance.text}
        delta |= {"start": utterance.start, "end": utterance.end, "language": utterance.language}
        await send(openai.event(delta | ({"words": utterance.words} if words else {})))

    try:
        await request.unless_left(partial(job.run, say))
    except Refused as refused:
        await send(openai.event(openai.error(str(refused), refused.status, refused.reason)))
        return
    text = " ".join(utterance.text for utterance in job.found)
    done = {"type": "transcript.text.done", "text": text, "usage": openai.usage(job.heard_s)}
    await send(openai.event(done))


def _wanted(form: Form, *, translate: bool) -> Wanted:
    """Raises Refused, naming the field, if a field cannot be used. Unknown fields are passed over."""
    kind = form.first("response_format") or "json"
    if kind not in openai.FORMATS:
        raise _bad("response_format", f"response_format is one of {', '.join(openai.FORMATS)}.")
    granularities = [*form.fields.get("timestamp_granularities[]", ()), *form.fields.get("timestamp_granularities", ())]
    if not set(granularities) <= {"word", "segment"}:
        raise _bad("timestamp_granularities", "timestamp_granularities is word or segment.")
    try:
        temperature = float(form.first("temperature") or 0.0)
    except ValueError:
        temperature = -1.0
    if not 0.0 <= temperature <= 1.0:
        raise _bad("temperature", "temperature is a number from 0 to 1.")
    words = kind == "verbose_json" and "word" in granularities
    options = {name: form.first(name) for name in ("language", "prompt") if form.first(name)}
    if words or kind in ("srt", "vtt"):
        options["words"] = "1"
    if translate:
        options["translate"] = "1"
    stream = form.first("stream").lower() in ("true", "1")
    return Wanted(kind, words, stream, translate, options)


def _bad(param: str, message: str) -> Refused:
    refused = Refused(HTTPStatus.BAD_REQUEST, param, message)
    refused.param = param
    return refused


def _told(refused: Refused, request: Request) -> Response:
    """Return a refusal in OpenAI's form; readable for a web page, unless it is the page that is refused."""
    body = openai.error(str(refused), refused.status, None if refused.param else refused.reason, refused.param)
    told = Response.json(refused.status, body)
    page = {} if refused.reason in ("origin", "host") else _for_page(request)
    return replace(told, headers={**refused.response.headers, **page})


def _for_page(request: Request) -> dict[str, str]:
    """Return what lets a web page read the answer. Pages that are not allowed do not get this far."""
    origin = request.headers.get("origin")
    return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"} if origin else {}
