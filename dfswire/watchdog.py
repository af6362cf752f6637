"""Signs of life for systemd (WatchdogSec=): a task that says WATCHDOG=1 while the event loop turns.

Each daemon and mount runs one.  A process whose loop hangs for longer than the unit allows says
nothing, and is killed and started again by systemd; without a watchdog there is nothing to do.
sd_watchdog_enabled(3) says what the environment means.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import trio

from dfswire.daemon import notify
from dfswire.errors import UsageError

SIGNS_PER_LIMIT = 3  # systemd asks for two: one may be late


def interval_s(environ: Mapping[str, str], pid: int) -> float | None:
    """How often process `pid` should give a sign; None when nobody waits for it.

    Raises UsageError when the environment makes no sense.
    """
    text = environ.get("WATCHDOG_USEC")
    if not text or environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(f"WATCHDOG_USEC={text} in the environment: not a time in microseconds")
    return int(text) / 1e6 / SIGNS_PER_LIMIT


async def run_forever() -> None:
    """Give signs until cancelled; returns at once when nobody waits for them."""
    pause_s = interval_s(os.environ, os.getpid())
    while pause_s is not None:
        notify("WATCHDOG=1")
        await trio.sleep(pause_s)
