"""Signals that stop the daemon."""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


async def stop_on_signals(
    drain: Callable[[], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Call `drain` at the first SIGTERM or SIGINT, and end the process at the second."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        stopping = False
        async for number in signals:
            if stopping:
                logger.warning("second %s: ending at once", signal.Signals(number).name)
                # A decode in a worker thread cannot be interrupted, and nothing is left to be saved.
                os._exit(0)
            stopping = True
            logger.info("%s: stopping when the sessions are done (again to end at once)", signal.Signals(number).name)
            drain()
