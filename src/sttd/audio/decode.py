"""Decode a media file to PCM, in a process of its own: `python -m sttd.audio.decode < FILE > PCM`.

Media files come from anybody, and their decoders are large C programs. So they run apart from the daemon, with limits
on memory, processor time and files. The output is PCM, 16-bit, 16 kHz, mono. An error is a line on standard
error, for the user; then the exit code is UNUSABLE if the file cannot be used, or MISSING if a library is missing.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from sttd.audio.format import RATE, converter
from sttd.audio.wav import read_head

if TYPE_CHECKING:
    from collections.abc import Iterator

UNUSABLE, MISSING = 65, 69
MEMORY_BYTES = 512 << 20
"""Of address space, beyond what is mapped when the libraries are there."""
CPU_S = 600
FORMATS = "aac,ac3,aiff,amr,asf,au,avi,caf,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,w64,wav"
"""Containers, by FFmpeg's names. Playlists and lists of files, which name other files, are not among them."""
MEDIA = "for other formats install the extra media: pip install 'sttd[media]'"
NO_AUDIO = "there is no audio in the file"
BLOCK = 1 << 16
BAD_PACKETS = 100
"""In a row: then the rest of the file is taken for damaged."""


class Unusable(Exception):
    """The file cannot be used; the text is for the user."""

    def __init__(self, message: str, code: int = UNUSABLE) -> None:
        super().__init__(message)
        self.code = code


def main() -> None:
    """Decode standard input to standard output."""
    source, output = open(0, "rb", closefd=False), open(1, "wb", buffering=BLOCK, closefd=False)  # noqa: SIM115
    try:
        pieces = _by_ffmpeg(source)
    except ImportError:
        try:
            pieces = _by_soundfile(source)
        except ImportError:
            _restrict()
            pieces = wav_pieces(source)
    some = False
    try:
        for piece in pieces:
            some = True
            output.write(piece)
        output.flush()
        if not some:
            raise Unusable(NO_AUDIO)
    except BrokenPipeError:
        os._exit(0)
    except Unusable as error:
        _fail(str(error), error.code)
    except MemoryError:
        _fail("the file needs too much memory to decode", UNUSABLE)
    except Exception as error:
        _fail(f"the file cannot be decoded ({type(error).__name__})", UNUSABLE)


def _fail(message: str, code: int) -> NoReturn:
    sys.stderr.write(message)
    sys.stderr.flush()
    os._exit(code)


def _restrict() -> None:
    """From here on: no more files, no files that grow, bounded memory and time; and it is the first to go.

    Where memory is short, the kernel is to end this process and not the daemon.
    """
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with suppress(OSError):
        os.nice(10)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    highest = max(int(number) for number in os.listdir("/proc/self/fd"))
    for what, limit in (
        (resource.RLIMIT_NOFILE, highest),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_AS, mapped + MEMORY_BYTES),
    ):
        resource.setrlimit(what, (limit, limit))


def _by_ffmpeg(source: BinaryIO) -> Iterator[bytes]:
    """Raises ImportError if PyAV is not installed."""
    import av

    for module in pkgutil.walk_packages(av.__path__, "av."):  # what is imported later could not be opened
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    av.logging.set_level(av.logging.PANIC)
    _restrict()
    return _ffmpeg_pieces(av, source)


def _ffmpeg_pieces(av: Any, source: BinaryIO) -> Iterator[bytes]:
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
    try:
        container = av.open(source, options=options, metadata_errors="ignore")
    except MemoryError:
        raise
    except (av.error.FFmpegError, ValueError) as error:
        raise Unusable("this is not an audio file of a known format, or it is damaged") from error
    if not container.streams.audio:
        raise Unusable(NO_AUDIO)
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise Unusable("the codec of the audio is not known")
    stream.codec_context.thread_count = 1
    mono = _Mono(av)
    bad = 0
    try:
        for packet in container.demux(stream):
            try:
                for frame in packet.decode():
                    yield from mono.resampled(frame)
                bad = 0
            except MemoryError:
                raise
            except av.error.FFmpegError as error:
                bad += 1
                if bad > BAD_PACKETS:
                    raise Unusable("the file is damaged") from error
        yield from mono.resampled(None)
    except MemoryError:
        raise
    except av.error.FFmpegError:
        return  # it is cut off: what was heard counts


class _Mono:
    """Resamples frames, whose format may change: files may be joined of several."""

    def __init__(self, av: Any) -> None:
        self._av = av
        self._format: tuple[object, ...] = ()
        self._resampler: Any = None

    def resampled(self, frame: Any) -> Iterator[bytes]:
        """Yield the PCM that is ready after a frame; None: what is left."""
        if frame is not None:
            frame.pts = None  # of the file's clock, which may jump
        found = self._format if frame is None else (frame.format.name, frame.layout.name, frame.sample_rate)
        if found != self._format:
            yield from self._pieces(None)
            self._format = found
            self._resampler = self._av.AudioResampler(format="s16", layout="mono", rate=RATE)
        yield from self._pieces(frame)

    def _pieces(self, frame: Any) -> Iterator[bytes]:
        for heard in () if self._resampler is None else self._resampler.resample(frame):
            yield bytes(heard.planes[0])[: heard.samples * 2]


def _by_soundfile(source: BinaryIO) -> Iterator[bytes]:
    """Raises ImportError if soundfile is not installed."""
    import soundfile

    _restrict()
    return _soundfile_pieces(soundfile, source)


def _soundfile_pieces(soundfile: Any, source: BinaryIO) -> Iterator[bytes]:
    try:
        with soundfile.SoundFile(source) as file:
            channels = file.channels
            stream = converter(file.samplerate, "pcm_s16le", channels)
            while len(block := file.read(BLOCK // channels, dtype="int16")):
                yield stream.feed(block.tobytes())
            yield stream.flush()
    except (RuntimeError, ValueError) as error:
        raise Unusable(f"this is not a WAV or FLAC file that can be read; {MEDIA}", MISSING) from error


def wav_pieces(source: BinaryIO) -> Iterator[bytes]:
    """Yield the PCM of a WAV file. Raises Unusable if it is none, or has a format that needs a library."""
    try:
        head = read_head(source)
        stream = converter(head.rate, head.encoding, head.channels)
    except ValueError as error:
        raise Unusable(f"this is not a WAV file that can be read; {MEDIA}", MISSING) from error
    left = head.size
    while left and (block := source.read(BLOCK if left < 0 else min(BLOCK, left))):
        left -= len(block) if left > 0 else 0
        yield stream.feed(block)
    yield stream.flush()


if __name__ == "__main__":
    main()
