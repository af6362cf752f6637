"""Each operation of the kernel has an id and is counted.

The handlers (fuse.py through conversions.py, lowlevel/operations.py) begin and end with it.  The id
goes along with every call that is made for the operation, so the log lines of all daemons that had
a part in it carry it.
"""

from __future__ import annotations

import errno
import itertools
import logging
import secrets
import time
from collections.abc import Callable

from dfswire.daemon import REQUEST_ID

log = logging.getLogger(__name__)

ID_BYTES = 4  # of one mount process; a number follows

Count = Callable[[tuple[str, str], float], None]
"""(operation, outcome) and how long it took, in seconds."""


OK, CANCELLED = "ok", "cancelled"


def outcome_of(number: int) -> str:
    """The name of an errno; no name has the error that stands for "answered already"."""
    return errno.errorcode.get(number, "EINTR")


class OperationWatch:
    """The operations of one mount; `count` is told of each."""

    def __init__(self, count: Count = lambda labels, duration_s: None) -> None:
        self._count = count
        self._prefix = secrets.token_hex(ID_BYTES)
        self._numbers = itertools.count(1)

    def begin(self) -> float:
        """From here on everything in this task belongs to a new operation; pass the result to
        `end`."""
        # Not reset at the end: the next operation of this task has an id of its own.
        REQUEST_ID.set(f"{self._prefix}-{next(self._numbers):x}")
        return time.perf_counter()

    def end(self, operation: str, outcome: str, began_s: float) -> None:
        """The operation has its answer."""
        duration_s = time.perf_counter() - began_s
        self._count((operation, outcome), duration_s)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s: %s in %.1f ms", operation, outcome, duration_s * 1000)
