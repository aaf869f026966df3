"""Text as it is recognized: the hypothesis on the last line of a terminal, finals above it on standard output."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING
from unicodedata import combining, east_asian_width

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

CLEAR, DIM, PLAIN = "\r\x1b[K", "\x1b[2m", "\x1b[0m"


class Screen:
    """Shows events of the JSON protocol. Partials, errors and warnings go to standard error."""

    def __init__(self, *, partials: bool = True) -> None:
        self.errors = 0
        self._terminal = sys.stderr.isatty()
        self._partials = partials and self._terminal

    def show(self, event: Mapping[str, Any]) -> None:
        """Show an event; those without a text are passed over."""
        kind, text = event.get("type"), str(event.get("text", ""))
        if kind == "partial" and self._partials:
            last = tail(text, os.get_terminal_size(sys.stderr.fileno()).columns - 1)
            print(f"{CLEAR}{DIM}{last}{PLAIN}", end="", file=sys.stderr, flush=True)
        elif kind == "final":
            self._clear()
            print(text, flush=True)
        elif kind in ("error", "warning"):  # the session may go on
            self.say(f"sttd: {event.get('message')}")
            self.errors += kind == "error"

    def say(self, line: str) -> None:
        """Print a line for the person at the terminal."""
        self._clear()
        print(line, file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self._terminal:
            print(CLEAR, end="", file=sys.stderr, flush=True)


def tail(text: str, cells: int) -> str:
    """Return the end of a text that fits into so many cells of a terminal (UAX #11: East Asian letters take two)."""
    for at in range(len(text) - 1, -1, -1):
        cells -= 0 if combining(text[at]) else 2 if east_asian_width(text[at]) in "WF" else 1
        if cells < 0:
            return text[at + 1 :]
    return text
