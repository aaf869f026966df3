"""What the C library's allocator costs faster_whisper: memory, page faults and time, under several settings."""

from __future__ import annotations

from pathlib import Path

from bench import servers
from bench.corpus import Missing
from bench.latency import options
from bench.load import drive, resident_mb, turns
from bench.report import Section, machine, table

SETTINGS: dict[str, dict[str, str]] = {
    "as sttd sets it: a heap for each worker": {},
    "a heap for each thread, glibc's default": {"MALLOC_ARENA_MAX": "64"},
    "one heap": {"MALLOC_ARENA_MAX": "1"},
    "large blocks given back at once": {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"},
    "large blocks kept": {"MALLOC_MMAP_THRESHOLD_": str(1 << 26), "MALLOC_TRIM_THRESHOLD_": str(1 << 28)},
}
SENT, CLIENTS = 24, 2


def run(*, full: bool) -> Section:
    rows = []
    work = turns("en", 2, 5)[:SENT]
    for model in ("tiny.en", "base") if full else ("tiny.en",):
        if not (Path(servers.store()) / "faster_whisper" / model).exists():
            raise Missing(f"the model {model}")
        for name, environment in SETTINGS.items():
            with servers.sttd("--provider", "faster_whisper", "--model", model, **environment) as server:
                settings = options("json", server, CLIENTS, 0, whole=True, once=True, flush=True)
                drive(settings, work)
                before = faults(server.pid)
                outcome = drive(settings, work)
                each = (faults(server.pid) - before) / len(work)
                cost = [f"{each:.0f}", f"{1000 * outcome.cpu_s / len(work):.0f}"]
                rows.append([model, name, f"{resident_mb(server.pid):.0f}", *cost])
    text = f"""{machine("faster-whisper", "ctranslate2")}.

{CLIENTS} clients, {len(work)} recordings of 2 to 5 s, after all of them once; page faults and processor time for each.

{table(["model", "allocator", "MB", "page faults", "ms"], rows)}"""
    return Section("allocator", "The allocator under Whisper", text)


def faults(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])
