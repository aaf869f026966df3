"""Fit the number of connections to the number of files that the process may open (getrlimit(2))."""

from __future__ import annotations

import logging
import resource
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sttd.config.config import LimitsConfig

logger = logging.getLogger(__name__)
RESERVE = 32
"""Open files that sttd needs besides its connections: listeners, the event loop, models, imports."""


def fitted(limits: LimitsConfig, *, files_each: int, refused: int) -> LimitsConfig:
    """Return the limits with as many connections as the process may have, after raising its soft limit if needed.

    `files_each`: open files per session. `refused`: number of connections beyond the limit that may be open at once.
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
        "limits.connections = %d needs %d open files, and this process may have %d: serving at most %d connections "
        "(see LimitNOFILE= of systemd, or ulimit -n)",
        limits.connections,
        needed,
        soft,
        most,
    )
    return replace(limits, connections=most)
