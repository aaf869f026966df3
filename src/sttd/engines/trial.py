"""Load a model in a separate process first: a native library may crash or hang over a damaged file.

The trial is skipped if the model has loaded before, unless one of its files or the library has changed or the last load
failed. The digests are compared before each trial. The result is kept in a small file for each model, in
$STATE_DIRECTORY or the user's state folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING

from sttd.errors import ModelError
from sttd.models.store import check_digests, check_sizes, files_of, fingerprint

if TYPE_CHECKING:
    from sttd.engines.base import Engine

MIN_TIMEOUT_S, TIMEOUT_S_PER_MB = 60.0, 1.0
"""Timeout for loading a model and decoding a sentence: enough for a machine a hundred times slower than a PC."""
LOADING, LOADED = "loading", "loaded"


def load(engine: Engine) -> None:
    """Load an engine's model, after a trial if one is due.

    Raises ModelError, naming the damaged file if one is found, if the model cannot be loaded.
    """
    check_sizes(engine.model)
    record = Record(engine)
    if record.state != LOADED:
        check_digests(engine.model)
        record.write(LOADING)
        _try(engine)
    record.write(LOADING)
    engine.load()
    record.write(LOADED)


class Record:
    """The last known state of a model: LOADING (a load began), LOADED, or "" if the model or the library is new."""

    def __init__(self, engine: Engine) -> None:
        self.state = ""
        self._file = _folder() / f"{hashlib.sha256(os.fsencode(engine.model.absolute())).hexdigest()[:16]}.json"
        self._facts = {
            "model": str(engine.model),
            "library": _version(engine.library),
            "files": fingerprint(engine.model),
        }
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(self._file.read_text("utf-8"))
            if found["state"] == LOADING or all(found[key] == value for key, value in self._facts.items()):
                self.state = str(found["state"])

    def write(self, state: str) -> None:
        """Store the state. If it cannot be stored, there is a trial at each start."""
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps({**self._facts, "state": state}), "utf-8")


def _folder() -> Path:
    state = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if state:  # set by systemd from StateDirectory=
        return Path(state) / "loads"
    home = os.environ.get("XDG_STATE_HOME") or Path(os.environ.get("HOME") or "/dev/null") / ".local/state"
    return Path(home) / "sttd/loads"


def _version(library: str) -> str:
    packages = packages_distributions().get(library, [library])
    try:
        return f"{packages[0]} {version(packages[0])}"
    except PackageNotFoundError:
        return library


def _try(engine: Engine) -> None:
    given = pickle.dumps((type(engine), engine.config, engine.model, engine.languages))
    size = sum(path.stat().st_size for path in files_of(engine.model))
    limit = MIN_TIMEOUT_S + TIMEOUT_S_PER_MB * size / 1e6
    try:
        done = subprocess.run(
            [sys.executable, "-m", "sttd.engines.trial"],
            input=given,
            capture_output=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(f"{engine.library} does not finish in {limit:.0f} s {_over(engine)}") from None
    if done.returncode < 0:
        ended = signal.Signals(-done.returncode).name
        said = " ".join(done.stderr.decode(errors="replace").split())[-300:]
        raise ModelError(f"{engine.library} was killed by {ended} {_over(engine)}" + (f": {said}" if said else ""))
    if done.returncode:
        said = done.stdout.decode(errors="replace").strip()
        if not said:
            said = f"{engine.library} failed: " + " ".join(done.stderr.decode(errors="replace").split())[-300:]
        raise ModelError(f"{said} ({_suspects(engine)})")


def _over(engine: Engine) -> str:
    return f"while it loads the model in {engine.model}; {_suspects(engine)}"


def _suspects(engine: Engine) -> str:
    empty = [str(path.relative_to(engine.model)) for path in files_of(engine.model) if not path.stat().st_size]
    return f"{', '.join(empty)} is empty" if empty else "one of its files may be damaged"


def main() -> None:
    """Load the model that standard input describes. Runs in the separate process."""
    engine_class, config, model, languages = pickle.load(sys.stdin.buffer)  # noqa: S301 - the parent wrote it
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    try:
        engine_class(config, model, languages).load()
    except ModelError as error:
        sys.stdout.write(str(error))
        sys.stdout.flush()
        os._exit(1)
    os._exit(0)


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main()
