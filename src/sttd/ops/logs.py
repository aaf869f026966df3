"""The log on standard error: for people on a terminal, with priorities for journald."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sttd.config import LogConfig

# sd-daemon(3): a line that begins with <N> has that syslog priority.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


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
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
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


def set_up(config: LogConfig) -> None:
    """Log sttd's own records from `level` on, and warnings of libraries."""
    handler = logging.StreamHandler(sys.stderr)
    if config.format == "json":
        handler.setFormatter(JsonFormatter("%(message)s"))
    elif to_journal():
        handler.setFormatter(JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("sttd").setLevel(config.level.upper())
