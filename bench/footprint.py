"""What an installation for one cloud provider, with no local recognizer, takes on disk and in memory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import servers
from bench.corpus import ROOT, Missing, optional
from bench.latency import options
from bench.load import drive, resident_mb, turns
from bench.report import Section, machine, table

if TYPE_CHECKING:
    from tests.cloud.deepgram_standin import DeepgramStandin
    from tests.cloud.groq_standin import GroqStandin

GOALS = "40 MB on disk, 60 MB in memory"


def run(*, full: bool) -> Section:  # noqa: ARG001 - there is no shorter way
    if optional("trustme") is None:
        raise Missing("the package trustme, for the stand-ins")
    with tempfile.TemporaryDirectory() as folder:
        rows = [measured(provider, Path(folder)) for provider in ("groq", "deepgram")]
    text = f"""{machine("trio", "trio-websocket")}.

`pip install '.[groq]'` or `'.[deepgram]'` into an empty virtual environment: what site-packages grows by, with compiled
Python files; the daemon's resident memory when it is ready, and after one session of speech over TLS.
Goal: {GOALS}.

{table(["provider", "MB on disk", "MB when ready", "MB with a session", "finals"], rows)}"""
    return Section("footprint", "A daemon for a cloud provider alone", text)


def measured(provider: str, folder: Path) -> list[str]:
    python, disk = installed(provider, folder / provider)
    work = turns("en", 2, 5)[:3]
    standin = make_standin(provider, folder)
    with standin.running():
        from tests.support import KEY

        environment = {f"{provider.upper()}_API_KEY": KEY, "SSL_CERT_FILE": str(standin.certificates.file)}
        setting = f"{provider}.base_url={standin.base_url}"
        with servers.sttd("--provider", provider, "--set", setting, python=python, **environment) as server:
            time.sleep(1)
            ready = resident_mb(server.pid)
            outcome = drive(options("json", server, 1, 0, whole=True, once=True, flush=True), work)
            busy = resident_mb(server.pid)
    return [provider, f"{disk:.1f}", f"{ready:.0f}", f"{busy:.0f}", f"{len(outcome.latencies)}"]


def installed(provider: str, folder: Path) -> tuple[str, float]:
    """The interpreter, and MB."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin/python"
    before = size(folder)
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{ROOT}[{provider}]"],
        check=True,
    )
    return str(python), (size(folder) - before) / 1e6


def size(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())


def make_standin(provider: str, folder: Path) -> DeepgramStandin | GroqStandin:
    """A stand-in from the tests, with a real model behind it."""
    from tests.cloud.deepgram_standin import DeepgramStandin
    from tests.cloud.groq_standin import GroqStandin
    from tests.cloud.standin import Certificates

    store = Path(servers.store())
    models = {"groq": store / "faster_whisper/tiny.en", "deepgram": store / "vosk/vosk-small-ko"}
    if not models[provider].exists():
        raise Missing(f"the model {models[provider].name}")
    certificates = Certificates(folder)
    return (GroqStandin if provider == "groq" else DeepgramStandin)(certificates, models[provider])
