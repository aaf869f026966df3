"""A daemon that one command starts for itself, on a Unix socket that nobody else knows."""

from __future__ import annotations

import ctypes
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sttd.cli.upload import LOADING, readiness
from sttd.errors import ModelError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ALONE = ("server.tls_listen", "server.health_listen", "vosk_server.listen", "wyoming.listen", "access.tokens_file")
"""Settings that are emptied: the machine's own daemon has those addresses, and nobody else gets to this one."""
PR_SET_PDEATHSIG = 1
START_S = 300.0
"""Timeout for the model to be loaded."""


@dataclass(frozen=True, slots=True)
class OwnDaemon:
    """A daemon that runs: its address, and its process."""

    address: str
    pid: int

    def memory_mb(self) -> float:
        """Return its resident memory."""
        found = re.search(r"^VmRSS:\s*(\d+) kB$", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        return int(found[1]) / 1000 if found else 0.0


@contextmanager
def own_daemon(options: Sequence[str]) -> Iterator[OwnDaemon]:
    """Start a daemon; yield it once its model is loaded. `options` are those of the command line.

    Raises ModelError if there is no model or it does not load, and Unavailable if the daemon does not start.
    """
    with tempfile.TemporaryDirectory(prefix="sttd-") as folder, (Path(folder) / "log").open("w+") as log:
        path = f"{folder}/socket"
        command = [sys.executable, "-m", "sttd", *options, "--listen", f"unix:{path}", "--log-level", "error"]
        command += [part for setting in ALONE for part in ("--set", f"{setting}=")]
        process = subprocess.Popen(  # noqa: S603 - this very program
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - there are no threads yet
        )
        try:
            _wait_until_ready(process, path, Path(log.name))
            yield OwnDaemon(f"unix:{path}", process.pid)
        finally:
            process.kill()  # it has nothing to keep
            process.wait()


def _end_with_parent() -> None:
    """In the child: be killed when the command is, by whatever (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait_until_ready(process: subprocess.Popen[bytes], path: str, log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if (code := process.poll()) is not None:
            said = log.read_text(errors="replace").strip().splitlines()
            ended = f"sttd was killed by {signal.Signals(-code).name}" if code < 0 else f"sttd has ended with {code}"
            raise Unavailable(said[-1].removeprefix("sttd: ") if said else ended)
        if Path(path).exists():
            reason = readiness(path)
            if not reason:
                return
            if reason != LOADING:
                raise ModelError(f"{reason}; fetch the model with: sttd models pull")
        time.sleep(0.05)
    raise Unavailable(f"the model was not loaded within {START_S:g} s")
