"""Load for any speech-to-text server that speaks one of three protocols over a WebSocket: real recordings, paced.

    python -m bench.load --protocol json --url ws://127.0.0.1:3000/ws/stt --streams 4
    python -m bench.load --protocol vosk --url ws://127.0.0.1:2700 --folder ko
    python -m bench.load --protocol plain --url ws://127.0.0.1:8000/api/v1/ws --whole

A stream is a connection on which recordings follow one another, each with silence behind it, as fast as they were
spoken and whatever the server answers (an open loop). Latency counts from the end of speech to the last final that
comes before the next recording begins; an utterance without a text counts as infinitely late. With --whole a recording
is one message, sent when the one before was answered,
and latency counts from there: for servers that find no endpoints. `json` and `plain` are sttd's protocols, `vosk` is
vosk-server's. Recordings: ../shared/speech, or --folder with wav or flac files.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import time
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.corpus import Clip, Missing, at_16k, clips, hiss, optional
from bench.detectors import Detector, Gate, silero
from bench.gate_wer import normalized
from bench.report import table
from sttd.audio.format import RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SILENCE_S = 1.5
PING_S = 0.25


@dataclass(frozen=True)
class Turn:
    """One recording as it is sent: s16 at 16 kHz with silence behind it, and where speech ends, in seconds."""

    pcm: bytes
    speech_end: float
    transcript: str

    @property
    def seconds(self) -> float:
        return len(self.pcm) / 2 / RATE


@dataclass
class Outcome:
    """What one run found; latencies and pings in seconds."""

    streams: int
    utterances: int = 0
    missing: int = 0
    latencies: list[float] = field(default_factory=list)
    pings: list[float] = field(default_factory=list)
    said: list[tuple[str, str]] = field(default_factory=list)
    sent_s: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    rss_mb: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Percentiles in milliseconds; cores: processor time of the server over wall time."""
        return {
            "streams": self.streams,
            "utterances": self.utterances,
            "without text": self.missing,
            **percentiles("latency", self.latencies, (50, 95, 100)),
            **percentiles("ping", self.pings, (50, 99, 100)),
            "utterances/s": round(self.utterances / self.wall_s, 2) if self.wall_s else None,
            "cores": round(self.cpu_s / self.wall_s, 3) if self.cpu_s else None,
            "MB": round(self.rss_mb) if self.rss_mb else None,
            "word error rate": self.error_rate(),
        }

    def error_rate(self) -> float | None:
        jiwer = optional("jiwer")
        pairs = [(normalized(wanted), normalized(text)) for wanted, text in self.said if normalized(wanted)]
        if jiwer is None or not pairs:
            return None
        return round(100 * float(jiwer.wer([one for one, _ in pairs], [other for _, other in pairs])), 2)


def percentiles(name: str, values: Sequence[float], which: Sequence[int]) -> dict[str, float | None]:
    """Of values that may be infinite: each is one of them, not a mean of two."""
    found = {at: float(np.percentile(values, at, method="higher")) for at in which} if values else {}
    names = {at: "max" if at == 100 else f"p{at}" for at in which}
    return {f"{name} {names[at]} ms": round(1000 * found[at], 1) if values else None for at in which}


def turns(folder: str, shortest: float, longest: float) -> list[Turn]:
    """The recordings of that length, with the ends of speech in them."""
    found = []
    for clip in from_folder(Path(folder)) if "/" in folder else clips(folder, "speech"):
        pcm = at_16k(clip)
        if shortest <= len(pcm) / RATE <= longest and (end := speech_end(pcm)) > 0:
            silence = hiss(int(SILENCE_S * RATE), np.random.default_rng(1))
            found.append(Turn(np.concatenate([pcm, silence]).tobytes(), end, clip.transcript))
    if not found:
        raise Missing(f"recordings of {shortest:g} to {longest:g} s in {folder}")
    return found


def from_folder(folder: Path) -> list[Clip]:
    soundfile = optional("soundfile")
    if soundfile is None:
        raise Missing("the package soundfile")
    found = []
    for path in sorted((*folder.glob("*.wav"), *folder.glob("*.flac"))):
        samples, rate = soundfile.read(path, dtype="int16", always_2d=True)
        found.append(Clip(path.stem, path, rate, samples, "", "", ""))
    return found


def speech_end(pcm: NDArray[np.int16]) -> float:
    """Seconds to the end of the last frame that is speech: by Silero, or where that is missing by sttd's gate."""
    detector: Detector = silero() or Gate()
    judge = detector.start()
    data, size = np.pad(pcm, (0, detector.samples)).tobytes(), 2 * detector.samples
    voiced = [judge(data[at : at + size])[1] for at in range(0, len(data) - size + 1, size)]
    frames = len(voiced) - voiced[::-1].index(True) if any(voiced) else 0
    return min(frames * detector.samples, len(pcm)) / RATE


class Stream:
    """One connection."""

    def __init__(self, number: int, options: argparse.Namespace, turns: Sequence[Turn], outcome: Outcome) -> None:
        self._options = options
        if options.once:
            self._turns = iter(turns[number :: options.streams])
        else:
            self._turns = islice(cycle(turns), number * 3, None)
        self._outcome = outcome
        self._finals: list[tuple[float, str]] = []
        self._heard = asyncio.Event()
        # Streams do not all speak at the same moment.
        self._delay = (number * 0.618 % 1) * turns[0].seconds

    async def run(self, until: float) -> None:
        from websockets.asyncio.client import connect
        from websockets.exceptions import ConnectionClosed

        async with connect(self._options.url, max_size=None, compression=None, ping_interval=None) as socket:
            if self._options.protocol == "vosk":
                await socket.send(json.dumps({"config": {"sample_rate": RATE}}))
            tasks = [asyncio.create_task(self._receive(socket)), asyncio.create_task(self._ping(socket))]
            if not self._options.once:
                await asyncio.sleep(self._delay)
            for turn in self._turns:
                if time.monotonic() >= until and not self._options.once:
                    break
                try:
                    await (self._whole(socket, turn) if self._options.whole else self._paced(socket, turn))
                except ConnectionClosed:
                    self._outcome.utterances += 1
                    self._outcome.missing += 1
                    self._outcome.latencies.append(math.inf)
                    break
            for task in tasks:
                task.cancel()

    async def _receive(self, socket: Any) -> None:
        async for message in socket:
            if text := final_text(self._options.protocol, message):
                self._finals.append((time.monotonic(), text))
                self._heard.set()

    async def _ping(self, socket: Any) -> None:
        while True:
            await asyncio.sleep(PING_S)
            started = time.monotonic()
            await (await socket.ping())
            self._outcome.pings.append(time.monotonic() - started)

    async def _paced(self, socket: Any, turn: Turn) -> None:
        step = self._options.piece_ms * RATE // 1000 * 2
        self._finals.clear()
        started = time.monotonic()
        for at in range(0, len(turn.pcm), step):
            piece = turn.pcm[at : at + step]
            # A piece can be sent when its last sample was spoken.
            await asyncio.sleep(max(0.0, started + (at + len(piece)) / 2 / RATE - time.monotonic()))
            await socket.send(piece)
        self._note(turn, started + turn.speech_end)

    async def _whole(self, socket: Any, turn: Turn) -> None:
        self._finals.clear()
        self._heard.clear()
        started = time.monotonic()
        await socket.send(turn.pcm[: int(turn.speech_end * RATE + 0.5 * RATE) * 2])
        if self._options.flush:
            await socket.send('{"type": "flush"}')
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._heard.wait(), 60)
        self._note(turn, started)

    def _note(self, turn: Turn, since: float) -> None:
        self._outcome.utterances += 1
        self._outcome.sent_s += turn.seconds
        self._outcome.said.append((turn.transcript, " ".join(text for _, text in self._finals)))
        if self._finals:
            self._outcome.latencies.append(self._finals[-1][0] - since)
        else:
            self._outcome.missing += 1
            self._outcome.latencies.append(math.inf)


def final_text(protocol: str, message: str | bytes) -> str:
    if isinstance(message, bytes):
        return ""
    if protocol == "plain":
        return message
    found = json.loads(message)
    if protocol == "vosk":
        return str(found.get("text", ""))
    return str(found["text"]) if found.get("type") == "final" else ""


def processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def drive(options: argparse.Namespace, work: Sequence[Turn]) -> Outcome:
    """One run: `options` as the command line has them."""
    outcome = Outcome(options.streams)

    async def all_streams() -> None:
        until = time.monotonic() + options.seconds
        await asyncio.gather(*(Stream(number, options, work, outcome).run(until) for number in range(options.streams)))

    started, cpu = time.monotonic(), processor_time(options.pid) if options.pid else 0.0
    asyncio.run(all_streams())
    outcome.wall_s = time.monotonic() - started
    if options.pid:
        outcome.cpu_s, outcome.rss_mb = processor_time(options.pid) - cpu, resident_mb(options.pid)
    return outcome


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m bench.load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--protocol", choices=("plain", "json", "vosk"), required=True)
    found.add_argument("--url", required=True)
    found.add_argument("--streams", type=int, default=1)
    found.add_argument("--seconds", type=float, default=60, help="no stream begins a recording later than this")
    found.add_argument("--piece-ms", type=int, default=100, help="audio in a message")
    found.add_argument("--whole", action="store_true", help="a recording in a message, one after the other")
    found.add_argument("--flush", action="store_true", help="with --whole: ask sttd for the text at once")
    found.add_argument("--once", action="store_true", help="every recording once, shared out among the streams")
    found.add_argument("--folder", default="en", help="of ../shared/speech, or a path with a slash")
    found.add_argument("--shortest", type=float, default=2.0, help="seconds of a recording, at least")
    found.add_argument("--longest", type=float, default=5.0, help="seconds of a recording, at most")
    found.add_argument("--pid", type=int, help="of the server, for its processor time and memory")
    found.add_argument("--json", metavar="FILE", help="write the figures there too")
    return found


def main() -> None:
    options = parser().parse_args()
    try:
        summary = drive(options, turns(options.folder, options.shortest, options.longest)).summary()
    except Missing as missing:
        raise SystemExit(f"missing: {missing}") from None
    print(table(list(summary), [["" if value is None else str(value) for value in summary.values()]]))
    if options.json:
        Path(options.json).write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
