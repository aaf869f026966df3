"""Answers in the forms of OpenAI's audio API (openai-python, src/openai/types/audio)."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sttd.protocols.recording import Utterance

FORMATS = {
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "verbose_json": "application/json",
}
"""The values of `response_format`, and the type of each answer."""
CUE_S, CUE_CHARACTERS = 6.0, 84
"""The maximum of a subtitle: two lines of 42 characters, as long as it takes to read them."""


def error(message: str, status: int, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """Return the body of an answer that is an error."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def answer(kind: str, found: Sequence[Utterance], duration_s: float, language: str, task: str, words: bool) -> str:
    """Return the body for a `response_format`. `words`: with the times of words, in `verbose_json`."""
    text = " ".join(utterance.text for utterance in found)
    match kind:
        case "text":
            return f"{text}\n"
        case "srt":
            cues = enumerate(subtitles(found), 1)
            return "".join(f"{n}\n{_time(a, ',')} --> {_time(b, ',')}\n{said}\n\n" for n, (a, b, said) in cues)
        case "vtt":
            cues_of_it = "".join(f"{_time(a, '.')} --> {_time(b, '.')}\n{said}\n\n" for a, b, said in subtitles(found))
            return f"WEBVTT\n\n{cues_of_it}"
        case "verbose_json":
            return json.dumps(_verbose(found, text, duration_s, language, task, words), ensure_ascii=False)
    return json.dumps({"text": text, "usage": usage(duration_s)}, ensure_ascii=False)


def usage(duration_s: float) -> Mapping[str, Any]:
    """Return what a request is billed by."""
    return {"type": "duration", "seconds": math.ceil(duration_s)}


def _verbose(
    found: Sequence[Utterance], text: str, duration_s: float, language: str, task: str, words: bool
) -> Mapping[str, Any]:
    segments = [
        {
            "id": number,
            "seek": round(utterance.start * 100),
            "start": utterance.start,
            "end": utterance.end,
            "text": utterance.text,
            # Required, but not known here.
            "tokens": [],
            "temperature": 0.0,
            "avg_logprob": 0.0,
            "compression_ratio": 0.0,
            "no_speech_prob": 0.0,
        }
        for number, utterance in enumerate(found)
    ]
    timed = [
        {"word": word["word"], "start": word["start"], "end": word["end"]}
        for utterance in found
        for word in utterance.words
    ]
    return {
        "task": task,
        "language": language,
        "duration": round(duration_s, 3),
        "text": text,
        "segments": segments,
        **({"words": timed} if words else {}),
        "usage": usage(duration_s),
    }


def subtitles(found: Sequence[Utterance]) -> Iterator[tuple[float, float, str]]:
    """Yield begin, end and text of each subtitle. An utterance that is too long for one is cut between words."""
    for utterance in found:
        line: list[Mapping[str, Any]] = []
        for word in utterance.words:
            length = sum(len(one["word"]) + 1 for one in line) + len(word["word"])
            if line and (word["end"] - line[0]["start"] > CUE_S or length > CUE_CHARACTERS):
                yield _cue(line)
                line = []
            line.append(word)
        if line:
            yield _cue(line)
        elif not utterance.words:
            yield utterance.start, utterance.end, utterance.text


def _cue(words: Sequence[Mapping[str, Any]]) -> tuple[float, float, str]:
    return words[0]["start"], words[-1]["end"], " ".join(word["word"] for word in words)


def _time(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    return (
        f"{milliseconds // 3600000:02}:{milliseconds // 60000 % 60:02}:{milliseconds // 1000 % 60:02}"
        f"{point}{milliseconds % 1000:03}"
    )


def event(data: Mapping[str, Any]) -> bytes:
    """Return a server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
