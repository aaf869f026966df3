"""The log on standard error: for people on a terminal, with priorities for journald.

A thread of its own writes it, so that a reader that stalls stops no session: what it does not take waits in a bounded
queue, and is counted and dropped beyond that.
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
MOST_WAITING = 1000
"""Lines that wait for a reader of the log."""
SAID_AGAIN_S = 60.0
"""How often trio may complain that no connection can be accepted; it would ten times a second, with a traceback."""
LAST_WORDS_S = 1.0
"""How long the end of the process waits for one."""

_PLACE = re.compile(r"%%|(?:\b([a-z_]+)=)?(%[-#0 +]*\d*(?:\.\d+)?[a-zA-Z])")
"""A place for an argument in a message, and the key before it."""


class JournalFormatter(logging.Formatter):
    """Each line with its priority; the journal has the time already."""

    def format(self, record: logging.LogRecord) -> str:
        """One record, perhaps of several lines."""
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def to_journal() -> bool:
    """Whether standard error is connected to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(STANDARD_ERROR)
    except OSError:
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


class JsonFormatter(logging.Formatter):
    """An object a line; an argument that stands in its message as key=%s is a field of its own.

    Only the places count that are written in the code: what is put into them may come from a client.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
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
    """Writes records from a thread. It writes past `sys.stderr`, whose lock a stalled write would hold at the end."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        super().__init__()
        self._waiting: queue.Queue[str | threading.Event] = queue.Queue(most)
        self._dropped = 0
        threading.Thread(target=self._write, name="log", daemon=True).start()
        atexit.register(self.finish)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record, if there is room for it; does not block."""
        try:
            self._waiting.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1
        except Exception:
            self.handleError(record)

    def finish(self, within_s: float = LAST_WORDS_S) -> None:
        """Wait until all is written, or for so long."""
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
                        "msg": "%d lines of the log were lost here: nobody read them",
                        "args": (dropped,),
                    }
                )
                item = f"{item}\n{self.format(record)}"
            data = f"{item}\n".encode(errors="backslashreplace")
            with suppress(OSError):  # who should read it is gone
                while data:
                    data = data[os.write(STANDARD_ERROR, data) :]


class Seldom(logging.Filter):
    """Lets a logger say something once in SAID_AGAIN_S, without a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self._last = -SAID_AGAIN_S

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        record.exc_info = None
        passes = record.created - self._last >= SAID_AGAIN_S
        self._last = record.created if passes else self._last
        return passes


def set_up(config: LogConfig) -> None:
    """Log sttd's own records from `level` on, and warnings of libraries."""
    root = logging.getLogger()
    writer = next((handler for handler in root.handlers if isinstance(handler, Writer)), None) or Writer()
    if config.format == "json":
        writer.setFormatter(JsonFormatter("%(message)s"))
    elif to_journal():
        writer.setFormatter(JournalFormatter("%(message)s"))
    else:
        writer.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    root.handlers[:] = [writer]
    logging.getLogger("trio.serve_listeners").filters[:] = [Seldom()]
    root.setLevel(logging.WARNING)
    logging.getLogger("sttd").setLevel(config.level.upper())


def finish() -> None:
    """Have written what was logged, if somebody reads it."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Writer):
            handler.finish()
