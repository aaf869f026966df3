"""The watchdog: how late the event loop runs its tasks, and whether the service manager is told that all is well.

sd_notify(3): with WatchdogSec the manager restarts a service that has not sent WATCHDOG=1 for so long.
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
MOST_LAG_S = 5.0


def watchdog_s() -> float:
    """How often the service manager wants to hear; 0: never."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        return 0.0


async def watch(stuck: Callable[[], str], status: Callable[[], str]) -> None:
    """Measure the loop's lag for ever, and feed the watchdog while it is small and `stuck` has nothing to say.

    `status`: one line about how things are, for `systemctl status`.
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
        problem = f"the event loop is {lag:.1f} s late" if lag > MOST_LAG_S else stuck()
        if problem and problem != complained:
            logger.error("not well: %s%s", problem, "; the watchdog is not fed" if patience else "")
        complained = problem
        if patience and not problem and now - told >= patience - PERIOD_S:
            notify("WATCHDOG=1")
            told = now
        if now - last_status >= STATUS_S and (line := status()) != shown:
            notify(f"STATUS={line}")
            shown, last_status = line, now
