"""How many connections there are, and how many there may be."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Connections:
    """Counts open connections against a limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open = 0

    @property
    def full(self) -> bool:
        """Whether there is no room for those that are open now (the newest counts)."""
        return self.open > self.limit

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Count a connection for as long as the context lasts."""
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1
