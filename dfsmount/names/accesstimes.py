"""When files were read: the rule of the mount option, and the news of it on its way to metad.

The vfs notes every read; whether that makes a new atime is decided by the rule (relatime by
default, as Linux does).  New times are gathered and sent in the background, several hundred in one
operation, so no read waits for them; until metad has them they are laid over what is known of the
inode, for stat on this mount.  They are news of no weight: what changes an inode overtakes them,
and a crash may lose those of the last seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import msgspec
import trio

from dfsmount.config import NOATIME, RELATIME, STRICTATIME
from dfsmount.leases.attrcache import AttrCache
from dfswire.batches import OpResult
from dfswire.errors import DFSError
from dfswire.messages import Attr
from dfswire.operations import FS_NOATIME, Access, AccessTime

log = logging.getLogger(__name__)

SEND_EVERY_S = 10.0
SENT_AT_ONCE_MAX = 500  # metad writes so many in about 5 ms
WAITING_MAX = 10_000  # then they are sent early
DAY_NS = 86_400 * 10**9


def is_due(rule: str, attr: Attr, now_ns: int) -> bool:
    """Does reading at this moment give the inode a new atime?"""
    if rule == RELATIME:
        return (
            attr.atime_ns <= max(attr.mtime_ns, attr.ctime_ns) or now_ns - attr.atime_ns >= DAY_NS
        ) and not attr.flags & FS_NOATIME
    return rule == STRICTATIME and not attr.flags & FS_NOATIME


class Submitter(Protocol):
    """Who brings mutations to metad."""

    async def submit(self, operation: Access) -> OpResult: ...


class AccessTimes:
    """The new atimes of one mount.  Its `run` sends them."""

    def __init__(
        self, rule: str, attrs: AttrCache, metadata: Submitter, now_ns: Callable[[], int]
    ) -> None:
        self._rule = rule
        self._attrs = attrs
        self._metadata = metadata
        self._now_ns = now_ns
        self._waiting: dict[int, AccessTime] = {}  # until metad has them
        self._noted = trio.Event()
        self._many = trio.Event()

    def note(self, attr: Attr) -> None:
        """The inode, of which metad told this last, was just read."""
        now_ns = self._now_ns()
        if self._rule == NOATIME or not is_due(self._rule, self.overlaid(attr), now_ns):
            return
        # Later than the last change, whatever this host's clock says: else it would be due for ever
        atime_ns = max(now_ns, attr.ctime_ns + 1)
        self._waiting[attr.inode] = AccessTime(
            inode=attr.inode, atime_ns=atime_ns, ctime_ns=attr.ctime_ns
        )
        self._noted.set()
        if len(self._waiting) > WAITING_MAX:
            self._many.set()

    def overlaid(self, attr: Attr) -> Attr:
        """With an atime that metad does not have yet."""
        waiting = self._waiting.get(attr.inode)
        if waiting is None or waiting.ctime_ns != attr.ctime_ns:
            return attr
        return msgspec.structs.replace(attr, atime_ns=waiting.atime_ns)

    async def run(self) -> None:
        """Send what was noted.  Ends by cancellation."""
        while True:
            await self._noted.wait()
            with trio.move_on_after(SEND_EVERY_S):
                await self._many.wait()
            self._noted, self._many = trio.Event(), trio.Event()
            await self.send()

    async def send(self) -> None:
        """Everything that was noted up to now."""
        waiting = list(self._waiting.values())
        for start in range(0, len(waiting), SENT_AT_ONCE_MAX):
            times = waiting[start : start + SENT_AT_ONCE_MAX]
            try:
                await self._metadata.submit(Access(times=times))
            except DFSError as problem:
                log.info("%d times of reading are lost: %s", len(times), problem)
            else:
                for time in times:
                    self._attrs.put_atime(time.inode, time.atime_ns, time.ctime_ns)
            for time in times:
                if self._waiting.get(time.inode) is time:
                    del self._waiting[time.inode]
