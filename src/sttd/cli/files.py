"""`sttd transcribe FILE...`: which files, where their texts go, and one after the other to the end."""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from sttd.errors import RecognitionError, SttdError, first
from sttd.protocols import openai
from sttd.protocols.recording import Utterance, language_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sttd.cli.upload import Endpoint, Found

MEDIA = re.compile(
    r"\.(3gp|aac|ac3|aiff?|amr|au|avi|caf|flac|flv|m4[ab]|mka|mkv|mov|mp[34]|mpe?g|og[ag]|opus|ts|w64|wav|webm|wma)",
    re.I,
)
"""Suffixes of the media files that are taken from a folder."""


@dataclass(frozen=True, slots=True)
class Job:
    """A file, and where its text goes; None: to standard output."""

    file: Path
    target: Path | None

    @property
    def done(self) -> bool:
        """Whether the text is there, and not older than the file."""
        with suppress(OSError):
            return self.target is not None and self.target.stat().st_mtime >= self.file.stat().st_mtime
        return False


def jobs(names: Sequence[str], output: str, kind: str) -> list[Job]:
    """Return a job for each file, in the order of `names`; of a folder all media files below it, sorted.

    Two files never share a target. Raises RecognitionError if a pattern or a folder has no files.
    """
    found: dict[Path, Job] = {}
    targets: set[Path] = set()
    for name in names:
        for file, inside in _expanded(name):
            if file in found:
                continue
            target = None
            if output:
                target = Path(output) / inside.with_suffix(f".{kind}")
                if target in targets:  # a.mp3 and a.wav
                    target = Path(output) / inside.with_name(f"{inside.name}.{kind}")
                targets.add(target)
            found[file] = Job(file, target)
    return list(found.values())


def _expanded(name: str) -> Iterator[tuple[Path, Path]]:
    """Yield each file of a name, and its path below the folder of texts."""
    path = Path(name)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if MEDIA.fullmatch(file.suffix) and file.is_file())
        if not files:
            raise RecognitionError(f"{name}: there are no media files in this folder")
        yield from ((file, file.relative_to(path)) for file in files)
    elif not path.exists() and any(letter in name for letter in "*?["):
        matches = [Path(match) for match in sorted(glob(name, recursive=True)) if os.path.isfile(match)]
        if not matches:
            raise RecognitionError(f"{name}: no file matches")
        yield from ((match, Path(match.name)) for match in matches)
    else:
        yield path, Path(path.name)


def formatted(kind: str, found: Found, language: str) -> str:
    """Return a text in one of the formats of `sttd transcribe`."""
    utterances = found.utterances
    if kind == "tsv":
        lines = (f"{u.start * 1000:.0f}\t{u.end * 1000:.0f}\t{u.text.replace(chr(9), ' ')}\n" for u in utterances)
        return "start\tend\ttext\n" + "".join(lines)
    if kind == "txt":
        return "".join(f"{utterance.text}\n" for utterance in utterances)
    known = language or language_of(utterances)
    answer = openai.answer(
        {"json": "verbose_json"}.get(kind, kind), utterances, found.duration_s, known, "transcribe", words=True
    )
    return json.dumps(json.loads(answer), ensure_ascii=False, indent=1) + "\n" if kind == "json" else answer


class Batch:
    """Transcribes files with several daemons, some at once; a file that fails does not stop the others."""

    def __init__(
        self, work: Sequence[Job], endpoints: Sequence[Endpoint], kind: str, fields: Mapping[str, str]
    ) -> None:
        self.failures: list[str] = []
        self._waiting = list(reversed(work))
        self._single = len(work) == 1 and work[0].target is None
        self._named = len(work) > 1
        self._kind = kind
        self._endpoints = endpoints
        self._fields = fields
        self._bar = None if self._streams else _bar(work)
        self._bytes_per_s = 0.0  # of the last file that is done: others are probably alike
        self._shown: dict[Path, int] = {}  # bytes of files at work that the bar has

    async def run(self, at_once: int) -> None:
        """Transcribe all. `at_once`: the maximum of files at once at each daemon."""
        try:
            async with trio.open_nursery() as nursery:
                for endpoint in self._endpoints:
                    for _ in range(at_once):
                        nursery.start_soon(self._work, endpoint)
        except BaseExceptionGroup as group:  # an interrupt; a reader of the texts that is gone
            raise first(group) from None
        finally:
            if self._bar is not None:
                self._bar.close()

    async def _work(self, endpoint: Endpoint) -> None:
        while self._waiting:
            job = self._waiting.pop()
            if job.done:
                self._say(f"{job.file}: {job.target} is there already")
            else:
                try:
                    said = _print_from_thread if self._streams else partial(self._advance_from_thread, job.file)
                    call = partial(endpoint.transcribe, job.file, self._fields, said)
                    found = await trio.to_thread.run_sync(call, abandon_on_cancel=True)
                    self._keep(job, found)
                    self._bytes_per_s = job.file.stat().st_size / max(found.duration_s, 0.1)
                except BrokenPipeError:
                    raise
                except (SttdError, OSError) as error:
                    self.failures.append(str(error))
                    self._say(f"sttd: {error}")
            if self._bar is not None:
                with suppress(OSError):
                    self._bar.update(job.file.stat().st_size - self._shown.pop(job.file, 0))

    def _advance_from_thread(self, file: Path, utterance: Utterance) -> None:
        if self._bar is not None:
            trio.from_thread.run_sync(self._advance, file, utterance.end)

    def _advance(self, file: Path, position_s: float) -> None:
        """Move the bar to a position in a file. Only a guess: the end of a file is known when it is reached."""
        assert self._bar is not None
        with suppress(OSError):
            done = min(int(position_s * self._bytes_per_s), file.stat().st_size)
            self._bar.update(done - self._shown.get(file, 0))
            self._bar.set_postfix_str(f"{file.name} {position_s:.0f} s")
            self._shown[file] = done

    @property
    def _streams(self) -> bool:
        """Whether the text of the only file is printed as it is found."""
        return self._single and self._kind == "txt"

    def _keep(self, job: Job, found: Found) -> None:
        text = formatted(self._kind, found, self._fields.get("language", ""))
        if job.target is not None:
            job.target.parent.mkdir(parents=True, exist_ok=True)
            unfinished = job.target.with_name(f".{job.target.name}.part")  # never half a text under its name
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(job.target)
        elif not self._streams:
            self._say(f"{job.file}:\n{text}" if self._named else text.rstrip("\n"), to=sys.stdout)

    def _say(self, line: str, to: Any = None) -> None:
        """Print a line without tearing the bar."""
        to = to or sys.stderr
        if self._bar is not None:
            self._bar.write(line, file=to)
        else:
            print(line, file=to, flush=True)


def _print_from_thread(utterance: Utterance) -> None:
    trio.from_thread.run_sync(partial(print, utterance.text, flush=True))


def _bar(work: Sequence[Job]) -> Any:
    """Return a progress bar if there is a terminal, and tqdm, which both local providers bring along."""
    if not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    total = 0
    for job in work:
        with suppress(OSError):
            total += job.file.stat().st_size
    return tqdm(
        total=total, unit="B", unit_scale=True, unit_divisor=1024, desc=f"{len(work)} files", dynamic_ncols=True
    )
