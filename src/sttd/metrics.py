"""What `/metrics` shows, in the terms of Prometheus. Modules count what they do; nothing here knows them."""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
RATIOS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0)

SESSIONS = Gauge("sttd_sessions", "Sessions that there are.", ["protocol", "provider"], registry=REGISTRY)
SESSIONS_ENDED = Counter(
    "sttd_sessions_ended",
    "Sessions that have ended, by close code.",
    ["protocol", "provider", "code"],
    registry=REGISTRY,
)
AUDIO = Counter("sttd_audio_seconds", "Audio received.", ["protocol", "provider"], registry=REGISTRY)
UTTERANCES = Counter(
    "sttd_utterances", "Finals sent, by the provider that found the text.", ["protocol", "provider"], registry=REGISTRY
)
REALTIME_FACTOR = Histogram(
    "sttd_realtime_factor",
    "Seconds for recognizing an utterance, with waiting for a worker, per second of its audio.",
    ["provider"],
    buckets=RATIOS,
    registry=REGISTRY,
)
FIRST_PARTIAL = Histogram(
    "sttd_first_partial_seconds",
    "From the onset of speech in the stream to the first partial.",
    ["provider"],
    buckets=SECONDS,
    registry=REGISTRY,
)
FINALIZATION = Histogram(
    "sttd_finalization_seconds",
    "From the end of an utterance, as the endpointer sees it, to its final.",
    ["provider"],
    buckets=SECONDS,
    registry=REGISTRY,
)
QUEUED = Gauge("sttd_queued_seconds", "Audio of all sessions that waits to be decoded.", registry=REGISTRY)
LOOP_LAG = Histogram(
    "sttd_event_loop_lag_seconds",
    "How late the event loop ran a task that slept.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0),
    registry=REGISTRY,
)
TASKS = Gauge("sttd_event_loop_tasks", "Tasks of the event loop.", registry=REGISTRY)
REJECTED = Counter(
    "sttd_rejected",
    "Connections that were refused before they were a session, by reason.",
    ["reason"],
    registry=REGISTRY,
)
LIMITS_HIT = Counter("sttd_limits_hit", "Limits that a client ran into.", ["limit"], registry=REGISTRY)
FAULTS = Counter("sttd_faults", "Sessions that ended by a fault in sttd or in a recognizer.", registry=REGISTRY)
MODEL_LOAD = Gauge(
    "sttd_model_load_seconds", "How long the model took to load.", ["provider", "model"], registry=REGISTRY
)
MODEL_MEMORY = Gauge(
    "sttd_model_memory_bytes", "By how much resident memory grew as the model was loaded.", ["provider", "model"],
    registry=REGISTRY,
)  # fmt: skip
CLOUD = Gauge("sttd_cloud", "What is left of a cloud account's limits.", ["provider", "what"], registry=REGISTRY)
FALLBACKS = Counter(
    "sttd_fallbacks", "Utterances that a local provider took over.", ["provider", "engine"], registry=REGISTRY
)

CONTENT_TYPE = CONTENT_TYPE_LATEST


def resident_bytes() -> int:
    """Resident memory of this process (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def exposition() -> str:
    """All of it, in the text format."""
    return generate_latest(REGISTRY).decode()
