"""Signals: SIGTERM and SIGINT stop the daemon, SIGHUP reloads its settings.

A terminal that is closed also sends SIGHUP (termios(3)). Then a daemon stops that was started in it without nohup.
"""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


def has_terminal() -> bool:
    """Return whether the process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


async def handle_signals(
    drain: Callable[[], None],
    reload: Callable[[], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call `drain` at the first SIGTERM or SIGINT, end the process at the second, and call `reload` at a SIGHUP.

    The SIGHUP of the daemon's terminal, when that is closed, counts as a SIGTERM.
    """
    in_terminal = has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        stopping = False
        async for number in signals:
            if number == signal.SIGHUP and (stopping or not in_terminal or has_terminal()):
                reload()
                continue
            if stopping:
                logger.warning("second %s: ending at once", signal.Signals(number).name)
                # A call in a worker thread cannot be interrupted, and there is nothing to save.
                os._exit(0)
            stopping = True
            logger.info("%s: stopping when the sessions are done (again to end at once)", signal.Signals(number).name)
            drain()
