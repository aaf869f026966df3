"""The log on standard error: plain text for a terminal, lines with priorities for the journal, or JSON.

A separate thread writes the log, so that a stalled reader of the log does not stop sessions. Lines wait in a bounded
queue; when that is full they are counted and dropped.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import queue
import re
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sttd.config.config import LogConfig

# sd-daemon(3): a line that begins with <N> has that syslog priority.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


STANDARD_ERROR = 2
MAX_WAITING = 1000
"""Maximum number of log lines in the queue."""
REPEAT_S = 60.0
"""Minimum interval of trio's warning that no connection can be accepted. Trio logs it ten times per second, with a
traceback."""
FINISH_S = 1.0
"""Maximum time that the end of the process waits for the reader of the log."""

_PLACE = re.compile(r"%%|(?:\b([a-z_]+)=)?(%[-#0 +]*\d*(?:\.\d+)?[a-zA-Z])")
"""A placeholder in a message, and the key before it."""


class JournalFormatter(logging.Formatter):
    """Puts the priority before each line. There is no time, since the journal adds it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one or several lines."""
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def to_journal() -> bool:
    """Return whether standard error is connected to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(STANDARD_ERROR)
    except OSError:
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


class JsonFormatter(logging.Formatter):
    """Writes one JSON object per line. A placeholder with a key, such as key=%s, also becomes a field.

    Keys are looked for in the message before its arguments are inserted, since arguments may come from a client.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one line."""
        message = super().format(record)
        places = [found for found in _PLACE.finditer(str(record.msg)) if found[2]]
        arguments = record.args if isinstance(record.args, tuple) else ()
        fields = {
            place[1]: str(value) if place[2] == "%r" else place[2] % (value,)
            for place, value in zip(places, arguments, strict=False)
            if place[1]
        }
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return json.dumps({**fields, "time": time, "level": record.levelname.lower(), "message": message})


class Writer(logging.Handler):
    """Writes records in a thread. Bypasses `sys.stderr`: a stalled write would hold its lock at the process's end."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        super().__init__()
        self._waiting: queue.Queue[str | threading.Event] = queue.Queue(max_waiting)
        self._dropped = 0
        threading.Thread(target=self._write, name="log", daemon=True).start()
        atexit.register(self.finish)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record, or count and drop it if the queue is full. Does not block."""
        try:
            self._waiting.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1
        except Exception:
            self.handleError(record)

    def finish(self, within_s: float = FINISH_S) -> None:
        """Wait until all queued records are written, at most twice `within_s` seconds."""
        written = threading.Event()
        with suppress(queue.Full):
            self._waiting.put(written, timeout=within_s)
            written.wait(within_s)

    def _write(self) -> None:
        while True:
            item = self._waiting.get()
            if isinstance(item, threading.Event):
                item.set()
                continue
            dropped, self._dropped = self._dropped, 0
            if dropped:
                record = logging.makeLogRecord(
                    {
                        "name": __name__,
                        "levelno": logging.WARNING,
                        "levelname": "WARNING",
                        "msg": "%d log lines were dropped here, because nobody read the log",
                        "args": (dropped,),
                    }
                )
                item = f"{item}\n{self.format(record)}"
            data = f"{item}\n".encode(errors="backslashreplace")
            with suppress(OSError):  # the reader has gone
                while data:
                    data = data[os.write(STANDARD_ERROR, data) :]


class RateLimit(logging.Filter):
    """Passes one record of a logger per REPEAT_S, without a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self._last = -REPEAT_S

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        record.exc_info = None
        passes = record.created - self._last >= REPEAT_S
        self._last = record.created if passes else self._last
        return passes


def set_up(config: LogConfig) -> None:
    """Set up the log: sttd's own records from `level` on, and warnings of libraries. May be called again."""
    root = logging.getLogger()
    writer = next((handler for handler in root.handlers if isinstance(handler, Writer)), None) or Writer()
    if config.format == "json":
        writer.setFormatter(JsonFormatter("%(message)s"))
    elif to_journal():
        writer.setFormatter(JournalFormatter("%(message)s"))
    else:
        writer.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    root.handlers[:] = [writer]
    logging.getLogger("trio.serve_listeners").filters[:] = [RateLimit()]
    root.setLevel(logging.WARNING)
    logging.getLogger("sttd").setLevel(config.level.upper())


def finish() -> None:
    """Wait until the log is written, for a short time."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Writer):
            handler.finish()
