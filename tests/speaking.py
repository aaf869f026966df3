"""Speech for machines without recordings: espeak-ng, from the package espeakng-loader."""

from __future__ import annotations

import ctypes
import wave
from typing import TYPE_CHECKING

import espeakng_loader

if TYPE_CHECKING:
    from pathlib import Path

SYNCHRONOUS, RATE, UTF8 = 2, 1, 1  # speak_lib.h: AUDIO_OUTPUT_SYNCHRONOUS, espeakRATE, espeakCHARS_UTF8
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def speak(text: str, voice: str, path: Path, words_a_minute: int) -> None:
    """Write `text`, as a voice such as `ko` reads it, to a WAV file."""
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
    assert rate > 0, "espeak-ng does not find its data"
    heard = bytearray()

    def take(samples: ctypes.Array[ctypes.c_short], count: int, _events: int) -> int:
        if samples and count:
            heard.extend(ctypes.string_at(samples, 2 * count))
        return 0

    callback = CALLBACK(take)
    library.espeak_SetSynthCallback(callback)
    assert library.espeak_SetVoiceByName(voice.encode()) == 0, f"espeak-ng has no voice {voice}"
    library.espeak_SetParameter(RATE, words_a_minute, 0)
    data = text.encode()
    assert library.espeak_Synth(data, len(data) + 1, 0, 1, 0, UTF8, None, None) == 0
    library.espeak_Terminate()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(heard))
