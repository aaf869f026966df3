"""The Prometheus metrics at `/metrics`. The modules that do the work update them."""

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

SESSIONS = Gauge("sttd_sessions", "Open sessions.", ["protocol", "provider"], registry=REGISTRY)
SESSIONS_ENDED = Counter(
    "sttd_sessions_ended",
    "Ended sessions, by close code.",
    ["protocol", "provider", "code"],
    registry=REGISTRY,
)
AUDIO = Counter("sttd_audio_seconds", "Received audio.", ["protocol", "provider"], registry=REGISTRY)
UTTERANCES = Counter(
    "sttd_utterances", "Finals sent, by the provider of the text.", ["protocol", "provider"], registry=REGISTRY
)
REALTIME_FACTOR = Histogram(
    "sttd_realtime_factor",
    "Seconds to recognize an utterance, including the wait for a worker, per second of its audio.",
    ["provider"],
    buckets=RATIOS,
    registry=REGISTRY,
)
FIRST_PARTIAL = Histogram(
    "sttd_first_partial_seconds",
    "Time from the onset of an utterance to its first partial.",
    ["provider"],
    buckets=SECONDS,
    registry=REGISTRY,
)
FINALIZATION = Histogram(
    "sttd_finalization_seconds",
    "Time from the end of an utterance, as the endpointer finds it, to its final.",
    ["provider"],
    buckets=SECONDS,
    registry=REGISTRY,
)
QUEUED = Gauge("sttd_queued_seconds", "Audio that waits to be decoded, in all sessions.", registry=REGISTRY)
LOOP_LAG = Histogram(
    "sttd_event_loop_lag_seconds",
    "Delay with which the event loop wakes a sleeping task.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0),
    registry=REGISTRY,
)
TASKS = Gauge("sttd_event_loop_tasks", "Tasks in the event loop.", registry=REGISTRY)
REJECTED = Counter(
    "sttd_rejected_connections",
    "Connections refused before a session began, by reason.",
    ["reason"],
    registry=REGISTRY,
)
LIMITS_HIT = Counter("sttd_limits_hit", "Times that clients reached a limit.", ["limit"], registry=REGISTRY)
FAULTS = Counter("sttd_faults", "Sessions ended by a fault in sttd or in a recognizer.", registry=REGISTRY)
MODEL_LOAD = Gauge("sttd_model_load_seconds", "Time to load the model.", ["provider", "model"], registry=REGISTRY)
MODEL_MEMORY = Gauge(
    "sttd_model_memory_bytes",
    "Growth of resident memory while the model was loaded.",
    ["provider", "model"],
    registry=REGISTRY,
)
CLOUD = Gauge("sttd_cloud_remaining", "Remaining quota of the cloud account.", ["provider", "what"], registry=REGISTRY)
FALLBACKS = Counter(
    "sttd_fallbacks",
    "Utterances that the local provider took over from the cloud.",
    ["provider", "engine"],
    registry=REGISTRY,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST


def resident_bytes() -> int:
    """Return the resident memory of this process (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def exposition() -> str:
    """Return all metrics in Prometheus's text format."""
    return generate_latest(REGISTRY).decode()
