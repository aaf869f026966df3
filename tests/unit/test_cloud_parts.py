"""What the cloud providers are made of, without a network: limits, the breaker, results, keys."""

from __future__ import annotations

import io
import os
import sys
import wave
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sttd.audio.encode import encoded
from sttd.clouds.base_url import BaseUrl
from sttd.clouds.budget import Bucket, Budget
from sttd.clouds.deepgram_results import Assembler
from sttd.config.credentials import api_key
from sttd.errors import ConfigError
from sttd.recognizers.fallback import MAX_PAUSE_S, Breaker

if TYPE_CHECKING:
    from pathlib import Path

PAUSE_S = 10.0
SOCKS = "socks5://127.0.0.1:1080"


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({}, ""),
        ({"ALL_PROXY": SOCKS}, SOCKS),
        ({"all_proxy": SOCKS, "HTTPS_PROXY": "http://127.0.0.1:3128"}, "http://127.0.0.1:3128"),
        ({"HTTP_PROXY": SOCKS}, ""),
        ({"ALL_PROXY": SOCKS, "NO_PROXY": "api.example"}, ""),
        ({"ALL_PROXY": SOCKS, "no_proxy": "other.example,.example"}, ""),
        ({"ALL_PROXY": SOCKS, "NO_PROXY": "other.example"}, SOCKS),
        ({"ALL_PROXY": SOCKS, "NO_PROXY": "*"}, ""),
    ],
    ids=str,
)
def test_the_environment_names_a_proxy_or_none(
    variables: dict[str, str], proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert BaseUrl("groq.base_url", "https://api.example/v1").proxy() == proxy


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 30)), max_size=60))
def test_no_minute_sees_more_than_a_bucket_and_a_minutes_refill(steps: list[tuple[float, float]]) -> None:
    bucket = Bucket(20, 60)
    now = 0.0
    taken: list[float] = []
    for pause, _ in steps:
        now += pause
        if bucket.wait(1, now) == 0:
            bucket.take(1, now)
            taken.append(now)
    for since in taken:
        assert sum(since <= time < since + 60 for time in taken) <= 40
    assert 0 <= bucket.level(now) <= 20


def test_short_requests_count_as_what_is_billed() -> None:
    budget = Budget(20, 100, min_billed_s=10)
    for _request in range(10):
        assert budget.wait(1, 0) == 0
        budget.take(1, 0)
    assert budget.wait(1, 0) == pytest.approx(360), "a hundred seconds an hour: ten in 360 s"
    assert budget.wait(1, 360) == pytest.approx(0)


def test_more_than_a_bucket_holds_waits_for_a_full_one() -> None:
    bucket = Bucket(20, 60)
    bucket.take(20, 0)
    assert bucket.wait(50, 0) == 60


def test_the_breaker_lets_one_try_at_a_time_and_waits_longer_each_time() -> None:
    breaker = Breaker(PAUSE_S)
    assert breaker.admit(0)
    breaker.failed(0)
    breaker.failed(1)
    assert not breaker.admit(PAUSE_S - 1)
    assert breaker.admit(PAUSE_S), "on trial"
    assert not breaker.admit(PAUSE_S), "one at a time"
    breaker.failed(PAUSE_S)
    assert not breaker.admit(3 * PAUSE_S - 1)
    assert breaker.admit(3 * PAUSE_S)
    breaker.succeeded()
    assert breaker.admit(3 * PAUSE_S)
    assert breaker.admit(3 * PAUSE_S)
    breaker.failed(100, permanent=True)
    assert not breaker.admit(100 + MAX_PAUSE_S - 1)


def test_a_breaker_without_a_pause_never_opens() -> None:
    breaker = Breaker(0)
    breaker.failed(0, permanent=True)
    assert breaker.admit(0)


def results(text: str, start: float, duration: float, **flags: bool) -> dict[str, Any]:
    step = duration / max(1, len(text.split()))
    words = [
        {"word": word, "start": start + n * step, "end": start + (n + 1) * step, "confidence": 1.0}
        for n, word in enumerate(text.split())
    ]
    alternative = {"transcript": text, "confidence": 1.0, "words": words}
    return {
        "type": "Results",
        "start": start,
        "duration": duration,
        "channel": {"alternatives": [alternative]},
        **flags,
    }


def heard(assembler: Assembler, message: dict[str, Any]) -> tuple[str, bool] | None:
    found = assembler.receive(message)
    return (found.transcript.text, found.final) if found else None


def test_results_are_put_together_as_documented() -> None:
    assembler = Assembler()
    assert heard(assembler, {"type": "SpeechStarted", "timestamp": 0.1}) is None
    assert heard(assembler, results("tell", 0, 0.5)) == ("tell", False)
    assert heard(assembler, results("tell me", 0, 1, is_final=True)) == ("tell me", False)
    assert heard(assembler, results("moor", 1, 0.5)) == ("tell me moor", False)
    assert heard(assembler, results("more", 1, 1, is_final=True, speech_final=True)) == ("tell me more", True)
    assert heard(assembler, {"type": "UtteranceEnd", "last_word_end": 2}) is None, "right after speech_final"
    assert heard(assembler, results("about", 2, 1, is_final=True)) == ("about", False)
    assert heard(assembler, {"type": "UtteranceEnd", "last_word_end": 3}) == ("about", True)
    assert heard(assembler, results("mo", 3, 0.5)) == ("mo", False)
    assert heard(assembler, results("", 3, 1, is_final=True, from_finalize=True)) == ("", True)
    assert assembler.finalized
    assert assembler.until == 4


def test_what_may_still_change_when_an_utterance_ends_is_said_once() -> None:
    assembler = Assembler()
    assembler.receive(results("tell me", 0, 1, is_final=True))
    assembler.receive(results("more", 1, 1.5))
    found = assembler.receive({"type": "UtteranceEnd", "last_word_end": 1})
    assert found
    assert (found.transcript.text, found.final, found.until) == ("tell me", True, 1)
    assert heard(assembler, results("more", 1, 2, is_final=True, speech_final=True)) == ("more", True)


def test_a_late_answer_is_not_that_of_the_next_utterance() -> None:
    assembler = Assembler()
    assembler.expect_finalize()
    assembler.end(2.0)
    assembler.expect_finalize()
    assert heard(assembler, results("first", 0, 2, is_final=True, from_finalize=True)) is None
    assert not assembler.finalized
    assert heard(assembler, results("second", 2, 1, is_final=True, from_finalize=True)) == ("second", True)


def test_half_a_character_is_replaced() -> None:
    assert heard(Assembler(), results("a\ud800", 0, 1)) == ("a?", False)


def test_results_of_an_utterance_that_is_over_are_left_out() -> None:
    assembler = Assembler()
    assembler.receive(results("first", 0, 1))
    assembler.end(2.0)
    assert heard(assembler, results("first again", 0, 2, is_final=True, speech_final=True)) is None
    assert heard(assembler, results("second", 2, 1)) == ("second", False)
    assert heard(assembler, results("first second", 0, 3)) == ("second", False), "words that were said before"


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
KEYS = ("type", "start", "duration", "channel", "is_final", "speech_final", "from_finalize")


@given(st.dictionaries(st.sampled_from(KEYS), json_values | st.just("Results")))
def test_any_other_json_raises_what_is_documented_at_most(message: dict[str, Any]) -> None:
    with suppress(ValueError):
        Assembler().receive(message)


def test_what_is_no_number_leaves_no_trace() -> None:
    assembler = Assembler()
    with pytest.raises(ValueError, match="finite"):
        assembler.receive(results("text", float("inf"), 1, is_final=True, from_finalize=True))
    assert not assembler.finalized


@pytest.mark.parametrize("where", ["environment", "file", "credentials"])
def test_keys_are_found(tmp_path: Path, where: str) -> None:
    file = tmp_path / "groq.key"
    file.write_text("gsk_x\n")
    environ = {"environment": {"GROQ_API_KEY": " gsk_x "}, "credentials": {"CREDENTIALS_DIRECTORY": str(tmp_path)}}
    assert api_key("groq", str(file) if where == "file" else "", environ.get(where, {})) == "gsk_x"


@pytest.mark.parametrize("content", ["", "two words", "sch\N{LATIN SMALL LETTER O WITH DIAERESIS}n", "a\x00b"])
def test_what_is_no_key_is_refused_without_being_shown(tmp_path: Path, content: str) -> None:
    file = tmp_path / "groq.key"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="is not an API key") as error:
        api_key("groq", str(file), {})
    assert not content or content not in str(error.value)


def test_a_missing_key_says_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"GROQ_API_KEY.*groq\.key_file.*LoadCredential=groq\.key"):
        api_key("groq", "", {"GROQ_API_KEY": "", "CREDENTIALS_DIRECTORY": str(tmp_path)})
    with pytest.raises(ConfigError, match="cannot be read"):
        api_key("groq", str(tmp_path / "nothing"), {})


def test_an_utterance_is_a_wav_file_where_soundfile_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    pcm = bytes(range(256)) * 10
    monkeypatch.setitem(sys.modules, "soundfile", None)
    upload = encoded(pcm)
    assert (upload.name, upload.media_type) == ("audio.wav", "audio/wav")
    with wave.open(io.BytesIO(upload.content)) as file:
        assert file.getparams()[:3] == (1, 2, 16000)
        assert file.readframes(10_000) == pcm
