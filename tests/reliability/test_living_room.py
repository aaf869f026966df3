"""Days of a living room in the time that the box needs for them: every utterance has its text, and nothing else has.

A microphone that is open all the time hears the room's own hiss and hum, silence while it is muted, now and then a
noise of ../shared/speech, and every ten minutes or so a sentence. STTD_ROOM_HOURS says how many hours (`make
reliability`: 48).
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.reliability.figures import figure
from tests.support import Clip, Daemon, at_16k_mono, running_daemon, shared_clips

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(40000)]
HOURS = float(os.environ.get("STTD_ROOM_HOURS", "1"))
RATE = 16000
BLOCK_S = 60
SENTENCE_EVERY_S, NOISE_EVERY_S = 600.0, 240.0
APART_S = 5.0
TEXTS_AN_HOUR = 2
"""Texts that come of no utterance, at most."""


@dataclass(frozen=True)
class Sound:
    """What is heard from `at` on, in seconds."""

    at: float
    samples: NDArray[np.float64]
    clip: Clip
    spoken: bool

    @property
    def end(self) -> float:
        return self.at + len(self.samples) / RATE


def programme(hours: float, sentences: list[Clip], noises: list[Clip]) -> list[Sound]:
    """Sounds that do not overlap, in order."""
    chance = random.Random(11)
    sounds: list[Sound] = []
    now = 30.0
    next_sentence, next_noise = chance.expovariate(1 / SENTENCE_EVERY_S), chance.expovariate(1 / NOISE_EVERY_S)
    while True:
        spoken = next_sentence < next_noise
        now = max(now, next_sentence if spoken else next_noise)
        clip = chance.choice(sentences if spoken else noises)
        samples = np.frombuffer(at_16k_mono(clip), np.int16).astype(float)
        peak = 32767 * 10 ** (chance.uniform(-26, -6) / 20)
        sound = Sound(now, samples * peak / max(1.0, float(np.abs(samples).max())), clip, spoken)
        if sound.end > hours * 3600 - 30:
            return sounds
        sounds.append(sound)
        now = sound.end + APART_S
        if spoken:
            next_sentence = now + chance.expovariate(1 / SENTENCE_EVERY_S)
        else:
            next_noise = now + chance.expovariate(1 / NOISE_EVERY_S)


def room(hours: float, sounds: list[Sound]) -> Iterator[bytes]:
    """The microphone's samples, a minute at a time."""
    rng = np.random.default_rng(12)
    length = BLOCK_S * RATE
    hum = 12 * np.sin(2 * np.pi * 50 * np.arange(length) / RATE)
    left = list(sounds)
    for minute in range(int(hours * 60)):
        muted = minute % 97 > 90  # seven minutes of digital silence now and then
        block = np.zeros(length) if muted else rng.standard_normal(length) * 8 + hum
        begin = minute * BLOCK_S
        while left and left[0].end < begin:
            left.pop(0)
        for sound in left:
            if sound.at > begin + BLOCK_S:
                break
            offset = round((sound.at - begin) * RATE)
            part = sound.samples[max(0, -offset) : length - offset]
            block[max(0, offset) : max(0, offset) + len(part)] += part
        yield np.clip(np.rint(block), -32768, 32767).astype(np.int16).tobytes()


def stream(daemon: Daemon, audio: Iterator[bytes]) -> list[dict[str, Any]]:
    """As fast as the daemon takes it; all events."""
    events: list[dict[str, Any]] = []
    with daemon.json(words=1, partials=0) as client:
        receiver = threading.Thread(target=lambda: events.extend(json.loads(message) for message in client))
        receiver.start()
        for block in audio:
            for at in range(0, len(block), 2 * RATE):
                client.send(block[at : at + 2 * RATE])
        client.send('{"type": "eof"}')
        receiver.join()
    return events


def test_a_living_room(models: Path) -> None:
    sentences = [clip for clip in shared_clips("en/ls-") if len(clip.samples) < 12 * clip.rate]
    noises = shared_clips("noise/")
    if not sentences or not noises:
        pytest.skip("../shared/speech is missing")
    sounds = programme(HOURS, sentences, noises)
    spoken = [sound for sound in sounds if sound.spoken]
    began = time.monotonic()
    with running_daemon(models, "--set", "limits.ping_s=600", "--set", "limits.send_s=600") as daemon:
        events = stream(daemon, room(HOURS, sounds))
    took = time.monotonic() - began
    finals = [event for event in events if event["type"] == "final" and event["words"]]
    starts = [final["words"][0]["start"] for final in finals]
    heard = {
        sound.at: [final["text"] for final, start in zip(finals, starts, strict=True) if belongs(sound, start)]
        for sound in spoken
    }
    silent = [f"{sound.at:.0f} s {sound.clip.name}" for sound in spoken if not heard[sound.at]]
    false = [
        f"{start:.0f} s {nearest(sounds, start).clip.name}: {final['text']!r}"
        for final, start in zip(finals, starts, strict=True)
        if not any(belongs(sound, start) for sound in spoken)
    ]
    figure(
        "living room",
        f"{HOURS:g} hours in {took:.0f} s: {len(spoken)} sentences, {len(silent)} without text {silent}; "
        f"{len(sounds) - len(spoken)} noises; {len(false)} texts that nobody said, {len(false) / HOURS:.1f} an hour: "
        f"{'; '.join(false)}",
    )
    assert not silent
    assert len(false) <= TEXTS_AN_HOUR * max(HOURS, 1)


def belongs(sound: Sound, start: float) -> bool:
    return sound.at - 1 <= start <= sound.end + 1


def nearest(sounds: list[Sound], start: float) -> Sound:
    return min(sounds, key=lambda sound: 0 if sound.at <= start <= sound.end else abs(sound.at - start))
