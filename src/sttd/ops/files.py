"""Open files: one a connection and more, of which a process may have only so many (getrlimit(2))."""

from __future__ import annotations

import logging
import resource
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sttd.config.config import LimitsConfig

logger = logging.getLogger(__name__)
RESERVE = 32
"""Files that sttd needs besides its clients': listeners, the event loop, models, what is imported."""


def fitted(limits: LimitsConfig, *, files_each: int, refused: int) -> LimitsConfig:
    """The limits with no more connections than there may be open files, after the soft limit was raised if need be.

    `files_each`: open files that a session needs; `refused`: connections beyond the limit that may be open.
    """
    spare = RESERVE + refused
    needed = limits.connections * files_each + spare
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return limits
    most = max(1, (soft - spare) // files_each)
    logger.warning(
        "limits.connections = %d needs %d open files, and this process may have %d: %d connections are served "
        "(see LimitNOFILE= of systemd, or ulimit -n)",
        limits.connections,
        needed,
        soft,
        most,
    )
    return replace(limits, connections=most)
