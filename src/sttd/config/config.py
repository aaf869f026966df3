"""Settings: what there is, what is allowed, and where a value came from.

Command line > environment > TOML files > defaults. Every setting is a field below with its help and its limits;
the same checks serve a client's options. An error names the setting, where it stands and what is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sttd.config.settings import build, read_toml, setting, settings_of, unknown_key
from sttd.errors import ConfigError, OptionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sttd.config.settings import Setting

DEFAULT_FILE = Path("/etc/sttd/sttd.toml")
SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 176400, 192000)
ENCODINGS = ("pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_u8", "pcm_mulaw", "pcm_alaw")
_ENVIRONMENT_ONLY = {"STTD_CYTHON_DEBUG"}  # read by setup.py, not a setting
_OF_OTHERS = re.compile(r"STTD_(PORT(_\d+_(TCP|UDP)\w*)?|SERVICE_(HOST|PORT\w*)|NAME|ENV_\w+)")
"""What Kubernetes and docker's links put into the environment where a service is named sttd."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Where sttd listens, and how it stops."""

    listen: tuple[str, ...] = setting(
        ("127.0.0.1:8000", "127.0.0.1:3000"), "addresses as host:port; every path on each"
    )
    tls_listen: tuple[str, ...] = setting((), "addresses at which TLS is spoken")
    tls_cert: str = setting("", "file with the certificate for TLS, and those that lead to it, in PEM")
    tls_key: str = setting("", "file with its private key, in PEM")
    health_listen: tuple[str, ...] = setting((), "addresses for /livez, /readyz and /metrics alone")
    drain_s: float = setting(30.0, "seconds that sessions have to finish after SIGTERM", low=0, high=3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessConfig:
    """Who may connect."""

    tokens_file: str = setting("", "file of tokens; empty: systemd's credential tokens, or none, and nobody is asked")
    query_token: bool = setting(False, "take a token from the query too (?token=), where proxies may log it")
    allow_unauthenticated: bool = setting(False, "serve other machines without tokens")
    origins: tuple[str, ...] = setting(
        (), "web pages that may connect, as https://host:port; empty: this machine's own, and any with a token"
    )
    hosts: tuple[str, ...] = setting((), "names of this machine besides its host name, for web pages and /metrics")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointConfig:
    """When an utterance begins and ends. A client may set these for its own session."""

    gate: bool = setting(True, "decode only what sounds like speech; off leaves endpoints to the recognizer")
    threshold: float = setting(
        0.5, "probability of speech that opens the gate; half of it keeps it open", low=0.01, high=0.99
    )
    onset_ms: int = setting(60, "speech without a break that an utterance must begin with", low=20, high=1000)
    min_speech_ms: int = setting(100, "speech that an utterance must have in all to be begun", low=20, high=2000)
    pre_roll_ms: int = setting(200, "audio before the onset that goes along", low=0, high=2000)
    hangover_ms: int = setting(500, "audio after the last speech that still goes to the recognizer", low=0, high=5000)
    pause_ms: int = setting(200, "silence after which a recognizer may start, in case it lasts", low=20, high=10000)
    min_silence_ms: int = setting(500, "silence that ends an utterance", low=100, high=10000)
    max_utterance_ms: int = setting(30000, "longest utterance, cut at its quietest place", low=1000, high=30000)
    arrival_pause_ms: int = setting(
        1000, "no audio from the client for so long ends an utterance; 0: never", low=0, high=60000
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions(EndpointConfig):
    """What a client may choose for its session, in the query string or in a `config` message."""

    sample_rate: int = setting(16000, "samples a second", choices=SAMPLE_RATES)
    encoding: str = setting("pcm_s16le", "sample format", choices=ENCODINGS)
    channels: int = setting(1, "interleaved channels", low=1, high=8)
    channel: int = setting(0, "the one channel to listen to; 0: all, mixed to one", low=0, high=8)
    language: str = setting("", "language code such as en or de; empty: the model's own, or detected")
    phrases: tuple[str, ...] = setting((), "all that vosk is to understand, by phrases; empty: everything")
    partials: bool = setting(True, "send hypotheses while speech goes on (JSON protocol)")
    words: bool = setting(False, "send word times and confidences with each final (JSON protocol)")
    lag: bool = setting(False, "send with each final how many seconds of audio wait behind it (JSON protocol)")
    engine: bool = setting(
        False, "say with each final which provider found it, and which it stood in for (JSON protocol)"
    )
    codes: bool = setting(False, "send with each error a code, and whether the session closes (JSON protocol)")
    warnings: bool = setting(False, "say what seems wrong with the audio (JSON protocol)")


@dataclass(frozen=True, slots=True, kw_only=True)
class VoskConfig:
    """The vosk provider."""

    workers: int = setting(0, "decoding threads; 0: one a core", low=0, high=256)
    recognizers: int = setting(
        0, "utterances open at once; 0: eight a core, less where memory is short", low=0, high=10000
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FasterWhisperConfig:
    """The faster_whisper provider."""

    workers: int = setting(0, "utterances decoded at once; 0: two where there are two cores or more", low=0, high=64)
    threads: int = setting(0, "threads a worker; 0: the cores shared out among the workers, at most 4", low=0, high=64)
    beam_size: int = setting(5, "beams of the search for a final", low=1, high=20)
    compute_type: str = setting(
        "int8",
        "arithmetic",
        choices=("int8", "int8_float32", "int16", "float32", "float16", "int8_float16", "auto"),
    )
    device: str = setting("cpu", "where it runs", choices=("cpu", "cuda", "auto"))
    partial_interval_ms: int = setting(
        500, "new audio between two partials, more where decoding is slow", low=200, high=30000
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroqConfig:
    """The groq provider, which sends each utterance over the internet."""

    model: str = setting("whisper-large-v3-turbo", "model, if the setting model is empty")
    base_url: str = setting("https://api.groq.com/openai/v1", "where the API is: a proxy, or a server of your own")
    key_file: str = setting("", "file with the API key; empty: GROQ_API_KEY or systemd's credential groq.key")
    prompt: str = setting("", "text that tells the model about names and spelling, at most 896 characters")
    temperature: float = setting(0.0, "randomness of the text", low=0, high=1)
    deadline_s: float = setting(8.0, "seconds that an utterance may take, tries and all", low=0.5, high=20)
    requests_per_minute: int = setting(20, "requests that the account allows", low=1, high=100000)
    seconds_per_hour: int = setting(7200, "seconds of audio that the account allows", low=30, high=10_000_000)
    least_billed_s: float = setting(10.0, "seconds that the shortest utterance counts for", low=0, high=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepgramConfig:
    """The deepgram provider, which sends speech over the internet as it comes."""

    model: str = setting("nova-3", "model, if the setting model is empty")
    base_url: str = setting("wss://api.deepgram.com", "where the API is: a proxy, or a server of your own")
    key_file: str = setting("", "file with the API key; empty: DEEPGRAM_API_KEY or systemd's credential deepgram.key")
    endpointing_ms: int = setting(300, "silence after which Deepgram itself ends an utterance", low=10, high=10000)
    finalize_s: float = setting(1.0, "seconds to wait for what an utterance's end still brings", low=0.1, high=10)
    deadline_s: float = setting(8.0, "seconds without an answer, or without a connection", low=0.5, high=20)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsConfig:
    """Where models are kept."""

    dir: str = setting("", "folder of the model store; empty: $STATE_DIRECTORY/models or the user's data folder")


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """What one client may take."""

    connections: int = setting(64, "open connections in all; more are answered with 503", low=1, high=100000)
    connections_per_address: int = setting(
        8, "connections from one other address; 127.0.0.1 and ::1 are not counted", low=1, high=100000
    )
    half_open: int = setting(
        16, "connections whose request head is not there yet; the oldest is cut for a newer one", low=1, high=100000
    )
    head_bytes: int = setting(16384, "size of a request head", low=1024, high=1 << 20)
    head_s: float = setting(5.0, "seconds that a request head may take", low=0.1, high=300)
    message_bytes: int = setting(1 << 30, "size of one audio message, which may be a recording", low=4096, high=1 << 40)
    text_bytes: int = setting(16384, "size of one text message", low=256, high=1 << 20)
    buffer_s: float = setting(
        10.0, "seconds of audio waiting in a session before its socket is read no further", low=1, high=600
    )
    ahead_bytes: int = setting(
        128 << 20, "audio read beyond buffer_s, of all sessions: a recording that is sent at once", low=0, high=1 << 40
    )
    lag_s: float = setting(
        5.0, "seconds that a live session may be behind before new ones are refused with 503", low=0.1, high=3600
    )
    send_s: float = setting(10.0, "seconds that a client may take to accept a message", low=0.1, high=600)
    ping_s: float = setting(
        20.0, "quiet seconds before a ping, and again until the client counts as gone", low=1, high=3600
    )
    close_s: float = setting(5.0, "seconds for the closing handshake", low=0.1, high=60)
    idle_s: float = setting(
        3600.0, "seconds without a message from a client before its session ends; 0: any", low=0, high=1e7
    )
    session_s: float = setting(0.0, "seconds that a session may last; 0: any", low=0, high=1e8)
    audio_s: float = setting(0.0, "seconds of audio that a session may send; 0: any", low=0, high=1e8)
    rate: float = setting(
        0.0, "seconds of audio that are read of a session in a second, after ten such seconds; 0: any", low=0, high=1e6
    )
    flush_s: float = setting(
        30.0, "seconds without progress after a client's close or eof before it is cut", low=0.1, high=600
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """What is written to standard error."""

    level: str = setting("info", "least severe level that is logged", choices=("debug", "info", "warning", "error"))
    format: str = setting(
        "auto",
        "auto: with priorities to the journal, readable elsewhere; or json, a line of it each",
        choices=("auto", "json"),
    )
    transcripts: bool = setting(False, "log the text of finals")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of a daemon."""

    provider: str = setting("faster_whisper", "recognition engine")
    model: str = setting("", "catalog name or folder of a model; empty: the provider's default")
    language: str = setting("", "language of sessions that name none")
    fallback: str = setting(
        "", "local provider that takes over when the cloud fails", choices=("", "vosk", "faster_whisper")
    )
    fallback_model: str = setting("", "its model; empty: its default")
    fallback_pause_s: float = setting(
        10.0, "seconds before the cloud is tried again; longer each time; 0: with each utterance", low=0, high=300
    )
    local_only: bool = setting(False, "refuse to start with a provider in the cloud")
    server: ServerConfig = field(default_factory=ServerConfig)
    access: AccessConfig = field(default_factory=AccessConfig)
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    vosk: VoskConfig = field(default_factory=VoskConfig)
    faster_whisper: FasterWhisperConfig = field(default_factory=FasterWhisperConfig)
    groq: GroqConfig = field(default_factory=GroqConfig)
    deepgram: DeepgramConfig = field(default_factory=DeepgramConfig)
    models: ModelsConfig = field(default_factory=ModelsConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def session_options(self) -> SessionOptions:
        """The options of a session whose client asks for nothing."""
        return SessionOptions(language=self.language, **dataclasses.asdict(self.endpoint))


def apply_options(options: SessionOptions, changes: Mapping[str, object]) -> SessionOptions:
    """`options` with a client's changes; OptionError names the first one that cannot be used."""
    known = settings_of(SessionOptions)
    values: dict[str, Any] = {}
    for key, value in changes.items():
        if key not in known:
            raise OptionError(unknown_key(key, known))
        try:
            values[key] = known[key].convert(value)
        except (ValueError, OverflowError):
            raise OptionError(f"{key}: {value!r} is not allowed; allowed is {known[key].allowed()}") from None
    if "phrases" in values:  # a Mac sends Korean decomposed; models have their words composed
        values["phrases"] = tuple(unicodedata.normalize("NFC", phrase) for phrase in values["phrases"])
    changed = dataclasses.replace(options, **values)
    if changed.channel > changed.channels:
        raise OptionError(f"channel: {changed.channel} is not allowed; there are {changed.channels} (see channels)")
    return changed


@dataclass(frozen=True)
class Loaded:
    """A configuration, and for each key where its value came from."""

    config: Config
    origins: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    """What was passed over, in words."""


def load(
    command_line: Mapping[str, str],
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
    providers: tuple[str, ...] = (),
) -> Loaded:
    """Merge all sources. `command_line` maps keys to texts; `providers` are the names that `provider` may have."""
    environ = os.environ if environ is None else environ
    known = settings_of(Config)
    values: dict[str, object] = {key: found.default for key, found in known.items()}
    origins = dict.fromkeys(known, "default")
    for key, value, origin in _sources(command_line, environ, file, known):
        if key not in known:
            raise ConfigError(f"{origin}: {unknown_key(key, known)}")
        if key == "provider" and providers and value not in providers:
            raise ConfigError(f"{origin}: Unsupported STT provider: {value}; allowed is one of {', '.join(providers)}")
        try:
            values[key] = known[key].convert(value)
        except (ValueError, OverflowError):
            raise ConfigError(
                f"{origin}: {key} = {value!r} is not allowed; allowed is {known[key].allowed()}"
            ) from None
        origins[key] = origin
    return Loaded(build(Config, values), origins, _passed_over(environ, known))


def _sources(
    command_line: Mapping[str, str],
    environ: Mapping[str, str],
    file: Path | None,
    known: Mapping[str, Setting],
) -> Iterator[tuple[str, object, str]]:
    """(key, value, origin), least important first."""
    main = file or DEFAULT_FILE
    try:
        there = file is not None or main.exists()
    except OSError as error:  # a folder that may not be entered; to go on without its settings could be unsafe
        raise ConfigError(f"{main}: cannot be read: {error.strerror}") from None
    if there:
        yield from read_toml(main)
    for extra in sorted((main.parent / "conf.d").glob("*.toml")):
        yield from read_toml(extra)
    if "STT_PROVIDER" in environ:
        yield "provider", environ["STT_PROVIDER"], "environment STT_PROVIDER"
    by_variable = _variables(known)
    for name in sorted(environ):
        if name in by_variable:
            yield by_variable[name], environ[name], f"environment {name}"
        elif _is_misspelt(name, by_variable):
            close = difflib.get_close_matches(name, by_variable, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ConfigError(f"environment: unknown setting {name}{hint}; known: {', '.join(by_variable)}")
    for key, value in command_line.items():
        yield key, value, "command line"


def _variables(known: Iterable[str]) -> dict[str, str]:
    """The keys of settings by the environment variables that set them."""
    return {f"STTD_{key.replace('.', '__').upper()}": key for key in known}


def _is_misspelt(name: str, by_variable: Iterable[str]) -> bool:
    """Whether a variable is meant to be a setting: it has a section, or is close to one. Others belong to others."""
    if not name.startswith("STTD_") or name in _ENVIRONMENT_ONLY or _OF_OTHERS.fullmatch(name):
        return False
    return "__" in name or bool(difflib.get_close_matches(name, by_variable, n=1, cutoff=0.8))


def _passed_over(environ: Mapping[str, str], known: Iterable[str]) -> tuple[str, ...]:
    by_variable = _variables(known)
    names = sorted(
        name
        for name in environ
        if name.startswith("STTD_") and name not in by_variable and name not in _ENVIRONMENT_ONLY
    )
    return (f"environment: passed over, since they are no settings: {', '.join(names)}",) if names else ()
