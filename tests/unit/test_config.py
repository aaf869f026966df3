"""Settings from all their sources, and what is said about wrong ones."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sttd.config.config import Config, SessionOptions, apply_options
from sttd.config.loading import load
from sttd.config.settings import settings_of
from sttd.errors import ConfigError, OptionError

PROVIDERS = ("faster_whisper", "vosk", "groq", "deepgram")


def test_defaults_are_those_of_the_documents() -> None:
    config = load({}, {}).config
    assert config.provider == "faster_whisper"
    assert config.server.listen == ("127.0.0.1:8000", "127.0.0.1:3000")
    options = config.session_options()
    assert (options.sample_rate, options.encoding, options.channels) == (16000, "pcm_s16le", 1)


def test_command_line_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "sttd.toml"
    file.write_text('provider = "vosk"\nlanguage = "de"\n[endpoint]\nmin_silence_ms = 700\n[log]\nlevel = "debug"\n')
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/10.toml").write_text("[endpoint]\nmin_silence_ms = 600\n")
    (tmp_path / "conf.d/20.toml").write_text('language = "fr"\n')
    environment = {"STTD_ENDPOINT__MIN_SILENCE_MS": "400", "STTD_LANGUAGE": "it", "STT_PROVIDER": "groq"}
    loaded = load({"language": "es"}, environment, file, PROVIDERS)
    config = loaded.config
    assert config.language == "es"
    assert config.endpoint.min_silence_ms == 400
    assert config.provider == "groq"
    assert config.log.level == "debug"
    assert loaded.origins["language"] == "command line"
    assert loaded.origins["endpoint.min_silence_ms"] == "environment STTD_ENDPOINT__MIN_SILENCE_MS"
    assert loaded.origins["log.level"] == str(file)
    assert loaded.origins["server.drain_s"] == "default"
    assert load({}, {}, file).config.endpoint.min_silence_ms == 600
    assert load({}, {}, file).config.language == "fr"


def test_sttd_provider_beats_the_documented_variable() -> None:
    assert load({}, {"STT_PROVIDER": "vosk", "STTD_PROVIDER": "groq"}).config.provider == "groq"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("porvider = 'vosk'", ["porvider", "did you mean 'provider'", "sttd.toml"]),
        ("[endpoint]\nmin_silense_ms = 5", ["endpoint.min_silense_ms", "did you mean 'endpoint.min_silence_ms'"]),
        ("[endpoint]\nmin_silence_ms = 5", ["endpoint.min_silence_ms", "5", "from 100 to 10000"]),
        ("[endpoint]\nmin_silence_ms = '1s'", ["'1s'", "whole number"]),
        ("[endpoint]\ngate = 2", ["endpoint.gate", "true or false"]),
        ("[log]\nlevel = 'loud'", ["log.level", "'loud'", "debug, info, warning, error"]),
        ("[server]\nlisten = 8000", ["server.listen", "list of texts"]),
        ("provider = 'x'", ["Unsupported STT provider: x", "faster_whisper, vosk, groq, deepgram"]),
        ("provider = ", ["is not TOML"]),
        ("[server]\ndrain_s = nan", ["server.drain_s"]),
    ],
)
def test_a_wrong_file_is_named_with_what_is_allowed(tmp_path: Path, text: str, parts: list[str]) -> None:
    file = tmp_path / "sttd.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load({}, {}, file, PROVIDERS)
    assert all(part in str(caught.value) for part in [*parts, str(file)]), caught.value
    assert caught.value.exit_code == 78


@pytest.mark.parametrize(
    ("environment", "parts"),
    [
        ({"STTD_PROVIDR": "vosk"}, ["STTD_PROVIDR", "did you mean STTD_PROVIDER"]),
        ({"STTD_ENDPOINTS__GATE": "off"}, ["STTD_ENDPOINTS__GATE", "did you mean STTD_ENDPOINT__GATE"]),
        ({"STT_PROVIDER": "x"}, ["environment STT_PROVIDER", "Unsupported STT provider: x"]),
        ({"STTD_SERVER__DRAIN_S": "soon"}, ["environment STTD_SERVER__DRAIN_S", "from 0 to 3600"]),
    ],
)
def test_a_wrong_environment_is_named_with_what_is_allowed(environment: dict[str, str], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, environment, None, PROVIDERS)
    assert all(part in str(caught.value) for part in parts), caught.value


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load({}, {}, tmp_path / "nothing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load({}, {}, tmp_path / "binary.toml")


def test_every_setting_has_help_and_a_default_that_is_allowed() -> None:
    for cls in (Config, SessionOptions):
        for found in settings_of(cls).values():
            assert found.help
            assert found.convert(found.default) == found.default
            assert found.allowed()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sample_rate": "48000"}, {"sample_rate": 48000}),
        ({"sample_rate": 48000.0}, {"sample_rate": 48000}),
        ({"words": 1, "partials": "false"}, {"words": True, "partials": False}),
        ({"threshold": "0.25"}, {"threshold": 0.25}),
    ],
)
def test_options_come_as_texts_and_as_json(changes: dict[str, object], expected: dict[str, object]) -> None:
    options = apply_options(SessionOptions(), changes)
    assert {key: getattr(options, key) for key in expected} == expected


def test_a_channel_that_is_not_there_is_refused() -> None:
    with pytest.raises(OptionError, match="channels is 2"):
        apply_options(SessionOptions(), {"channels": 2, "channel": 3})


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from([*settings_of(SessionOptions), "nonsense"]) | st.text(), _json, max_size=5))
def test_options_are_taken_or_refused_but_never_raise_anything_else(changes: dict[str, object]) -> None:
    try:
        options = apply_options(SessionOptions(), changes)
    except OptionError:
        return
    for key, found in settings_of(SessionOptions).items():
        assert found.convert(getattr(options, key)) == getattr(options, key)


def test_settings_behind_a_closed_door_are_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", closed)
    with pytest.raises(ConfigError, match=r"sttd\.toml: cannot be read: Permission denied"):
        load({}, {})


def test_variables_of_others_are_passed_over_with_a_warning() -> None:
    """A Kubernetes Service, or a docker link, that is named sttd puts them into every container."""
    others = {
        "STTD_PORT": "tcp://10.0.0.7:8000",
        "STTD_PORT_8000_TCP": "tcp://10.0.0.7:8000",
        "STTD_PORT_8000_TCP_ADDR": "10.0.0.7",
        "STTD_SERVICE_HOST": "10.0.0.7",
        "STTD_SERVICE_PORT_PLAIN": "8000",
        "STTD_NAME": "/app/sttd",
        "STTD_ENV_STTD_MODELS__DIR": "/models",
        "STTD_IMAGE": "x",
    }
    loaded = load({}, others | {"STTD_LANGUAGE": "it"})
    assert loaded.config.language == "it"
    [warning] = loaded.warnings
    assert all(name in warning for name in others)
    assert load({}, {"STTD_LANGUAGE": "it"}).warnings == ()


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "sttd.toml"
    file.write_bytes(b"\xef\xbb\xbf" + b'provider = "vosk"\n')
    assert load({}, {}, file).config.provider == "vosk"


def test_phrases_are_composed() -> None:
    decomposed = unicodedata.normalize("NFD", "감사 합니다")
    assert apply_options(SessionOptions(), {"phrases": [decomposed]}).phrases == ("감사 합니다",)
    assert apply_options(SessionOptions(), {"phrases": decomposed}).phrases == ("감사 합니다",)
