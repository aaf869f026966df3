"""Speech in the air: a PulseAudio server whose microphone hears a loudspeaker that nobody has."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from ctypes.util import find_library
from typing import TYPE_CHECKING

import jiwer
import soundfile

from tests.support import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SAID = "what you hear is turned into text on your own machine"
CAN_HEAR = all(map(shutil.which, ("pulseaudio", "paplay"))) and bool(find_library("portaudio"))
WHY_NOT = "pulseaudio, libportaudio2 and libasound2-plugins are not installed: there is no microphone to listen to"


class Speaker:
    """A PulseAudio server with a loudspeaker, whose monitor is the microphone of `environment`."""

    def __init__(self, folder: Path) -> None:
        socket = folder / "native"
        modules = (f"module-native-protocol-unix socket={socket} auth-anonymous=1", "module-null-sink rate=48000")
        command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"]
        command += [part for module in modules for part in ("-L", module)]
        own = {"XDG_RUNTIME_DIR": str(folder), "HOME": str(folder)}
        self.process = subprocess.Popen(command, env={**os.environ, **own}, stderr=subprocess.DEVNULL)
        self.environment = {**own, "PULSE_SERVER": f"unix:{socket}"}
        self.speech = folder / "speech.wav"
        samples, rate = soundfile.read(ROOT / "src/sttd/sample.wav", dtype="int16")
        soundfile.write(self.speech, samples[int(1.9 * rate) :], rate)  # its second sentence
        wait_until(socket.exists, 20, "PulseAudio")

    def play(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["paplay", str(self.speech)], env={**os.environ, **self.environment})


@contextmanager
def loudspeaker(folder: Path) -> Iterator[Speaker]:
    """A server of its own, below a folder."""
    place = folder / "pulse"
    place.mkdir(mode=0o700)
    found = Speaker(place)
    try:
        yield found
    finally:
        found.process.kill()
        found.process.wait()


def complete(said: int, texts: list[str]) -> bool:
    """Whether so many sentences are there, with every word; the recognizer may take some for others."""
    compared = jiwer.process_words(" ".join([SAID] * said), " ".join(texts))
    return compared.deletions == 0 and compared.wer < 0.25
