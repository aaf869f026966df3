"""All settings: their defaults, help texts and limits.

Every setting is a field below. The same checks serve the options that a client sends; loading.py has the other sources.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sttd.config.settings import setting, settings_of, unknown_key
from sttd.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Mapping

SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 176400, 192000)
ENCODINGS = ("pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_u8", "pcm_mulaw", "pcm_alaw")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Where sttd listens, and how it stops."""

    listen: tuple[str, ...] = setting(
        ("127.0.0.1:8000", "127.0.0.1:3000"), "addresses to listen on, as host:port; each serves all paths"
    )
    tls_listen: tuple[str, ...] = setting((), "addresses to listen on with TLS")
    tls_cert: str = setting("", "PEM file with the TLS certificate and its intermediate certificates")
    tls_key: str = setting("", "PEM file with the private key; empty: the key is in tls_cert")
    health_listen: tuple[str, ...] = setting((), "addresses that serve only /livez, /readyz and /metrics")
    drain_s: float = setting(30.0, "seconds that sessions have to finish after SIGTERM", low=0, high=3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class VoskServerConfig:
    """The wire of vosk-server."""

    listen: tuple[str, ...] = setting((), "addresses for clients of vosk-server, such as 127.0.0.1:2700; any path")


@dataclass(frozen=True, slots=True, kw_only=True)
class WyomingConfig:
    """The wire of Wyoming, which Home Assistant speaks."""

    listen: tuple[str, ...] = setting((), "addresses for Wyoming clients, such as 127.0.0.1:10300")
    peers: tuple[str, ...] = setting(
        (), "networks whose machines may connect besides this one, such as 192.168.1.0/24; Wyoming has no tokens"
    )
    early: bool = setting(False, "answer at the first end of speech, without waiting for the client's end of the audio")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessConfig:
    """Who may connect."""

    tokens_file: str = setting(
        "", "TOML file of tokens; empty: systemd's credential tokens if it exists, else no token is needed"
    )
    query_token: bool = setting(False, "also accept a token in the query string (?token=), where proxies may log it")
    allow_unauthenticated: bool = setting(False, "allow listening on addresses other than loopback without tokens")
    origins: tuple[str, ...] = setting(
        (), "web pages that may connect, as https://host:port; empty: pages of this machine, and any page with a token"
    )
    hosts: tuple[str, ...] = setting(
        (), "names of this machine, besides its host name, that web pages and clients of /metrics may use"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointConfig:
    """When an utterance begins and ends. A client may change these for its own session."""

    gate: bool = setting(True, "decode only audio that sounds like speech; if off, the recognizer finds endpoints")
    threshold: float = setting(
        0.5, "probability of speech that opens the gate; the gate closes below half of it", low=0.01, high=0.99
    )
    onset_ms: int = setting(60, "minimum uninterrupted speech at the start of an utterance", low=20, high=1000)
    min_speech_ms: int = setting(100, "minimum total speech before an utterance begins", low=20, high=2000)
    pre_roll_ms: int = setting(200, "audio before the onset that is added to the utterance", low=0, high=2000)
    hangover_ms: int = setting(500, "audio after the last speech that still goes to the recognizer", low=0, high=5000)
    pause_ms: int = setting(
        200, "silence after which a recognizer may start, in case the utterance is over", low=20, high=10000
    )
    min_silence_ms: int = setting(500, "silence that ends an utterance", low=100, high=10000)
    max_utterance_ms: int = setting(
        30000, "maximum length of an utterance; a longer one is cut at a quiet place", low=1000, high=30000
    )
    arrival_pause_ms: int = setting(
        1000, "time without audio from the client that ends an utterance; 0: never", low=0, high=60000
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions(EndpointConfig):
    """The options that a client may set for its session, in the query string or in a `config` message."""

    sample_rate: int = setting(16000, "samples per second", choices=SAMPLE_RATES)
    encoding: str = setting("pcm_s16le", "sample format", choices=ENCODINGS)
    channels: int = setting(1, "number of interleaved channels", low=1, high=8)
    channel: int = setting(0, "channel to listen to, counted from 1; 0: the mean of all channels", low=0, high=8)
    language: str = setting("", "language code such as en or de; empty: the model's own, or detected")
    phrases: tuple[str, ...] = setting(
        (), "the only phrases that vosk recognizes, and key terms for deepgram; empty: no restriction"
    )
    prompt: str = setting("", "text as if said before, with names and spellings to expect (faster_whisper)")
    translate: bool = setting(False, "translate to English, if the model can")
    partials: bool = setting(True, "send hypotheses while an utterance goes on (JSON protocol)")
    words: bool = setting(False, "send word times and confidences with each final (JSON protocol)")
    lag: bool = setting(False, "send with each final how many seconds of audio are not decoded yet (JSON protocol)")
    engine: bool = setting(
        False, "send with each final its provider, and the cloud provider that failed, if any (JSON protocol)"
    )
    alternatives: bool = setting(
        False, "send each result as a list of alternatives, which has one (vosk-server protocol)"
    )
    codes: bool = setting(False, "send with each error its code, and whether the session closes (JSON protocol)")
    warnings: bool = setting(False, "send warnings about the audio and the options (JSON protocol)")


@dataclass(frozen=True, slots=True, kw_only=True)
class VoskConfig:
    """The vosk provider."""

    workers: int = setting(0, "number of decoding threads; 0: one per core", low=0, high=256)
    recognizers: int = setting(
        0, "maximum number of open utterances; 0: eight per core, fewer if memory is short", low=0, high=10000
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FasterWhisperConfig:
    """The faster_whisper provider."""

    workers: int = setting(0, "utterances decoded at once; 0: two, or one on a single core", low=0, high=64)
    threads: int = setting(
        0, "threads per worker; 0: the number of cores divided by the workers, at most 4", low=0, high=64
    )
    beam_size: int = setting(5, "beam size of the search for a final", low=1, high=20)
    compute_type: str = setting(
        "int8",
        "number format of the computation",
        choices=("int8", "int8_float32", "int16", "float32", "float16", "int8_float16", "auto"),
    )
    device: str = setting("cpu", "device that runs the model", choices=("cpu", "cuda", "auto"))
    partial_interval_ms: int = setting(
        500, "minimum new audio between two partials; longer if decoding is slow", low=200, high=30000
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroqConfig:
    """The groq provider, which sends each utterance over the internet."""

    model: str = setting("whisper-large-v3-turbo", "model to use if the setting model is empty")
    base_url: str = setting("https://api.groq.com/openai/v1", "URL of the API, of a proxy or of your own server")
    key_file: str = setting(
        "", "file with the API key, unless GROQ_API_KEY is set; empty: systemd's credential groq.key"
    )
    prompt: str = setting("", "text with names and spellings to expect, at most 896 characters")
    temperature: float = setting(0.0, "sampling temperature", low=0, high=1)
    deadline_s: float = setting(8.0, "maximum seconds for an utterance, including retries", low=0.5, high=20)
    requests_per_minute: int = setting(20, "the account's quota: requests per minute", low=1, high=100000)
    seconds_per_hour: int = setting(7200, "the account's quota: seconds of audio per hour", low=30, high=10_000_000)
    min_billed_s: float = setting(
        10.0, "minimum seconds of audio that a request counts for in the account's quota", low=0, high=60
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepgramConfig:
    """The deepgram provider, which streams speech over the internet."""

    model: str = setting("nova-3", "model to use if the setting model is empty")
    base_url: str = setting("wss://api.deepgram.com", "URL of the API, of a proxy or of your own server")
    key_file: str = setting(
        "", "file with the API key, unless DEEPGRAM_API_KEY is set; empty: systemd's credential deepgram.key"
    )
    endpointing_ms: int = setting(300, "silence after which Deepgram itself ends an utterance", low=10, high=10000)
    finalize_s: float = setting(
        1.0, "seconds to wait for the last results at the end of an utterance", low=0.1, high=10
    )
    deadline_s: float = setting(8.0, "maximum seconds without an answer or a connection", low=0.5, high=20)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsConfig:
    """Where models are kept."""

    dir: str = setting("", "folder of the model store; empty: $STATE_DIRECTORY/models or the user's data folder")


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """How much one client may use."""

    connections: int = setting(64, "maximum open connections in total; more get 503", low=1, high=100000)
    connections_per_address: int = setting(
        8, "maximum connections from one address; 127.0.0.1 and ::1 have no limit", low=1, high=100000
    )
    half_open: int = setting(
        16, "maximum connections without a complete request head; beyond it the oldest is cut", low=1, high=100000
    )
    head_bytes: int = setting(16384, "maximum size of a request head", low=1024, high=1 << 20)
    head_s: float = setting(5.0, "timeout for receiving a request head", low=0.1, high=300)
    message_bytes: int = setting(
        1 << 30, "maximum size of an audio message, which may be a whole recording", low=4096, high=1 << 40
    )
    text_bytes: int = setting(16384, "maximum size of a text message", low=256, high=1 << 20)
    buffer_s: float = setting(
        10.0, "seconds of audio that a session may buffer; more counts towards ahead_bytes", low=1, high=600
    )
    ahead_bytes: int = setting(
        128 << 20,
        "maximum audio that all sessions together buffer beyond buffer_s; beyond it sockets are not read",
        low=0,
        high=1 << 40,
    )
    lag_s: float = setting(
        5.0, "seconds that a live session may be behind before new sessions get 503", low=0.1, high=3600
    )
    uploads: int = setting(
        8, "maximum recordings that are uploaded and transcribed at once; more get 503", low=1, high=1000
    )
    upload_bytes: int = setting(256 << 20, "maximum size of an uploaded recording", low=4096, high=1 << 40)
    upload_s: float = setting(14400.0, "maximum duration of an uploaded recording in seconds", low=1, high=1e7)
    send_s: float = setting(10.0, "timeout for sending a message to a client", low=0.1, high=600)
    ping_s: float = setting(
        20.0,
        "interval between pings, and the TCP timeout of a client whose machine acknowledges nothing",
        low=1,
        high=3600,
    )
    close_s: float = setting(5.0, "timeout of the closing handshake", low=0.1, high=60)
    idle_s: float = setting(
        3600.0, "seconds without a message from the client that end its session; 0: no limit", low=0, high=1e7
    )
    session_s: float = setting(0.0, "maximum duration of a session in seconds; 0: no limit", low=0, high=1e8)
    audio_s: float = setting(0.0, "maximum seconds of audio that a session may send; 0: no limit", low=0, high=1e8)
    rate: float = setting(
        0.0,
        "maximum reading speed of a session after its first 10 s, in seconds of audio per second; 0: no limit",
        low=0,
        high=1e6,
    )
    flush_s: float = setting(
        30.0, "timeout for progress after a client's close or eof; then the session is cut", low=0.1, high=600
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """The log on standard error."""

    level: str = setting("info", "minimum severity of log messages", choices=("debug", "info", "warning", "error"))
    format: str = setting(
        "auto",
        "auto: priorities for the journal, plain text elsewhere; json: one JSON object per line",
        choices=("auto", "json"),
    )
    transcripts: bool = setting(False, "log the text of finals")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of a daemon."""

    provider: str = setting("faster_whisper", "recognition engine")
    model: str = setting("", "catalog name or folder of a model; empty: the provider's default")
    language: str = setting("", "language of sessions that do not set one")
    fallback: str = setting(
        "", "local provider that takes over when the cloud fails", choices=("", "vosk", "faster_whisper")
    )
    fallback_model: str = setting("", "model of the fallback; empty: its provider's default")
    fallback_pause_s: float = setting(
        10.0,
        "seconds after a failure before the cloud is tried again, doubled with each failure; 0: no pause",
        low=0,
        high=300,
    )
    local_only: bool = setting(False, "refuse to start with a cloud provider")
    server: ServerConfig = field(default_factory=ServerConfig)
    vosk_server: VoskServerConfig = field(default_factory=VoskServerConfig)
    wyoming: WyomingConfig = field(default_factory=WyomingConfig)
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
        """Return the options of a session whose client sets none."""
        return SessionOptions(language=self.language, **dataclasses.asdict(self.endpoint))


def apply_options(options: SessionOptions, changes: Mapping[str, object]) -> SessionOptions:
    """Return `options` with a client's changes. Raises OptionError, naming the first option that cannot be used."""
    known = settings_of(SessionOptions)
    values: dict[str, Any] = {}
    for key, value in changes.items():
        if key not in known:
            raise OptionError(unknown_key(key, known))
        try:
            values[key] = known[key].convert(value)
        except (ValueError, OverflowError):
            raise OptionError(f"{key}: {value!r} is not allowed; allowed is {known[key].allowed()}") from None
    if "phrases" in values:  # macOS sends Korean in decomposed letters; models spell their words in composed ones
        values["phrases"] = tuple(unicodedata.normalize("NFC", phrase) for phrase in values["phrases"])
    changed = dataclasses.replace(options, **values)
    if changed.channel > changed.channels:
        raise OptionError(f"channel: {changed.channel} is not allowed; channels is {changed.channels}")
    return changed
