"""The microphone of this machine, through PortAudio: ALSA, and by its plugins PulseAudio and PipeWire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from sttd.audio.format import RATE
from sttd.config.config import SAMPLE_RATES
from sttd.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

PIECES_PER_SECOND = 10


def _portaudio() -> Any:
    """Import sounddevice. Raises Unavailable if it, or PortAudio, is not installed."""
    try:
        import sounddevice
    except ImportError:
        raise Unavailable("sttd listen needs the extra microphone: pip install 'sttd[microphone]'") from None
    except OSError:
        raise Unavailable("sttd listen needs PortAudio: sudo apt install libportaudio2") from None
    except Exception as error:  # PortAudioError, whose class cannot be imported then
        raise Unavailable(f"PortAudio does not start: {error}") from None
    return sounddevice


def devices() -> list[str]:
    """Return a line for each device with a microphone, the default one marked. Raises Unavailable as Microphone."""
    portaudio = _portaudio()
    default = portaudio.default.device[0]
    return [
        f"{'*' if number == default else ' '} {number:2}  {device['name']}"
        for number, device in enumerate(portaudio.query_devices())
        if device["max_input_channels"]
    ]


class Microphone:
    """An open microphone: a context manager, in which `take` gets what is heard, a tenth of a second at a time.

    `take` and `gone` are called in a thread of PortAudio; `gone` when the device is taken away. What is heard is 16-bit
    PCM; `options`, those of a session, say the rest.
    """

    def __init__(self, name: str, take: Callable[[bytes], None], gone: Callable[[], None]) -> None:
        """`name`: the number of a device or a part of its name; empty: the default.

        Raises Unavailable if PortAudio is missing, or if there is no such device.
        """
        self._portaudio = _portaudio()
        self._take = take
        self._gone = gone
        self._closing = False
        self.overflows = 0
        """How often sound was lost because this machine was busy."""
        if not name and self._portaudio.default.device[0] < 0:
            raise Unavailable("there is no microphone; sttd listen --list-devices has what there is")
        try:
            about = self._portaudio.query_devices(int(name) if name.isdecimal() else name or None, "input")
            self.name = about["name"]
            rate, channels = self._usable(about)
            self.options = {"sample_rate": rate, "channels": channels}
            self._stream = self._portaudio.RawInputStream(
                samplerate=rate,
                blocksize=rate // PIECES_PER_SECOND,
                device=about["index"],
                channels=channels,
                dtype="int16",
                latency="low",  # the text comes so much sooner
                callback=self._heard,
                finished_callback=self._finished,
            )
            self.delay_s = self._stream.latency + 1 / PIECES_PER_SECOND
            """From a sound to the call of `take`, at most."""
        except (self._portaudio.PortAudioError, ValueError, OverflowError) as error:
            which = f"the microphone {name}" if name else "the microphone"
            raise Unavailable(
                f"{which} cannot be used: {error}; sttd listen --list-devices has what there is"
            ) from None

    def _usable(self, about: Any) -> tuple[int, int]:
        """Return a sample rate and a number of channels that the device takes."""
        own = int(about["default_samplerate"])
        ways = [(RATE, 1), (own, 1), (own, min(about["max_input_channels"], 8))]
        for rate, channels in ways:
            try:
                self._portaudio.check_input_settings(about["index"], channels, "int16", samplerate=rate)
            except self._portaudio.PortAudioError:
                continue
            if rate in SAMPLE_RATES:
                return rate, channels
        raise ValueError(
            f"it has {own} Hz, 16 bit and {about['max_input_channels']} channels, which sttd does not take"
        )

    def __enter__(self) -> Self:
        try:
            self._stream.start()
        except self._portaudio.PortAudioError as error:
            raise Unavailable(f"the microphone {self.name} cannot be used: {error}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing = True
        self._stream.close()

    def _heard(self, data: Any, frames: int, time: Any, status: Any) -> None:  # noqa: ARG002 - PortAudio's callback
        self.overflows += bool(status.input_overflow)
        self._take(bytes(data))

    def _finished(self) -> None:
        if not self._closing:
            self._gone()
