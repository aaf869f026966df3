"""Decode a media file to PCM, in a process of its own: `python -m sttd.audio.decode < FILE > PCM`.

Media files come from anybody, and their decoders are large C programs. So they run apart from the daemon, with limits
on memory, processor time, threads and files. The output is PCM, 16-bit, 16 kHz, mono. An error is a line on standard
error, for the user; then the exit code is UNUSABLE if the file cannot be used, or MISSING if a library is missing.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import resource
import sys
from typing import IO, TYPE_CHECKING, Any, NoReturn

from sttd.audio.format import RATE

if TYPE_CHECKING:
    from collections.abc import Iterator

UNUSABLE, MISSING = 65, 69
MEMORY_BYTES = 2 << 30
"""Of address space, most of which libraries map and never touch."""
CPU_S = 1800
FORMATS = "aac,ac3,aiff,amr,asf,au,avi,caf,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,w64,wav"
"""Containers, by FFmpeg's names. Playlists and lists of files, which name other files, are not among them."""
NO_AUDIO = "there is no audio in the file"
BLOCK = 1 << 16
BAD_PACKETS = 100
"""In a row: then the rest of the file is taken for damaged."""


class Unusable(Exception):
    """The file cannot be used; the text is for the user."""


def main() -> None:
    """Decode standard input to standard output."""
    source, output = open(0, "rb", closefd=False), open(1, "wb", buffering=BLOCK, closefd=False)  # noqa: SIM115
    try:
        pieces = _by_ffmpeg(source)
    except ImportError:
        try:
            pieces = _by_soundfile(source)
        except ImportError:
            _fail("media files need the extra media: pip install 'sttd[media]'", MISSING)
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
        _fail(str(error), UNUSABLE)
    except MemoryError:
        _fail("the file needs too much memory to decode", UNUSABLE)


def _fail(message: str, code: int) -> NoReturn:
    sys.stderr.write(message)
    sys.stderr.flush()
    os._exit(code)


def _restrict() -> None:
    """From here on: no more files, no files that grow, bounded memory and time."""
    highest = max(int(number) for number in os.listdir("/proc/self/fd"))
    for what, limit in (
        (resource.RLIMIT_NOFILE, highest),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_AS, MEMORY_BYTES),
    ):
        resource.setrlimit(what, (limit, limit))


def _by_ffmpeg(source: IO[bytes]) -> Iterator[bytes]:
    """Raises ImportError if PyAV is not installed."""
    import av

    for module in pkgutil.walk_packages(av.__path__, "av."):  # what is imported later could not be opened
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    av.logging.set_level(av.logging.PANIC)
    _restrict()
    return _ffmpeg_pieces(av, source)


def _ffmpeg_pieces(av: Any, source: IO[bytes]) -> Iterator[bytes]:
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
    try:
        container = av.open(source, options=options, metadata_errors="ignore")
    except (av.error.FFmpegError, ValueError) as error:
        raise Unusable("this is not an audio file of a known format, or it is damaged") from error
    if not container.streams.audio:
        raise Unusable(NO_AUDIO)
    stream = container.streams.audio[0]
    stream.codec_context.thread_count = 1
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    bad = 0
    try:
        for packet in container.demux(stream):
            try:
                for frame in packet.decode():
                    frame.pts = None  # of the file's clock, which may jump
                    for heard in resampler.resample(frame):
                        yield bytes(heard.planes[0])[: heard.samples * 2]
                bad = 0
            except av.error.FFmpegError as error:
                bad += 1
                if bad > BAD_PACKETS:
                    raise Unusable("the file is damaged") from error
        for heard in resampler.resample(None):
            yield bytes(heard.planes[0])[: heard.samples * 2]
    except av.error.FFmpegError:
        return  # it ends in the middle: what was heard counts


def _by_soundfile(source: IO[bytes]) -> Iterator[bytes]:
    """Raises ImportError if soundfile is not installed."""
    import soundfile

    _restrict()
    return _soundfile_pieces(soundfile, source)


def _soundfile_pieces(soundfile: Any, source: IO[bytes]) -> Iterator[bytes]:
    from sttd.audio.format import converter

    try:
        with soundfile.SoundFile(source) as file:
            channels = file.channels
            stream = converter(file.samplerate, "pcm_s16le", channels)
            while len(block := file.read(BLOCK // channels, dtype="int16")):
                yield stream.feed(block.tobytes())
            yield stream.flush()
    except (RuntimeError, ValueError) as error:
        raise Unusable(
            "this is not a WAV or FLAC file that can be read; for other formats install the extra media: "
            "pip install 'sttd[media]'"
        ) from error


if __name__ == "__main__":
    main()
