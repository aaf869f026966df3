"""The watchdog: measure the delay of the event loop, and tell the service manager that the daemon works.

With WatchdogSec= the manager restarts a service that has not sent WATCHDOG=1 for that time (sd_notify(3)).
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import trio

from sttd.metrics import LOOP_LAG, TASKS
from sttd.ops.notify import notify

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)
PERIOD_S = 0.5
STATUS_S = 5.0
MAX_LAG_S = 5.0


def watchdog_s() -> float:
    """Return the watchdog timeout of the service manager in seconds; 0 if there is none."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        return 0.0


async def watch(stuck: Callable[[], str], status: Callable[[], str]) -> None:
    """Measure the delay of the event loop until cancelled, and feed the watchdog while all is well.

    `stuck` returns a problem, or "" if there is none. `status` returns a line for `systemctl status`.
    """
    patience = watchdog_s() / 3
    told, shown, last_status, complained = trio.current_time(), "", -STATUS_S, ""
    while True:
        before = trio.current_time()
        await trio.sleep(PERIOD_S)
        now = trio.current_time()
        lag = now - before - PERIOD_S
        LOOP_LAG.observe(max(0.0, lag))
        TASKS.set(trio.lowlevel.current_statistics().tasks_living)
        problem = f"the event loop is {lag:.1f} s late" if lag > MAX_LAG_S else stuck()
        if problem and problem != complained:
            logger.error("unhealthy: %s%s", problem, "; the watchdog is not fed" if patience else "")
        complained = problem
        if patience and not problem and now - told >= patience - PERIOD_S:
            notify("WATCHDOG=1")
            told = now
        if now - last_status >= STATUS_S and (line := status()) != shown:
            notify(f"STATUS={line}")
            shown, last_status = line, now
