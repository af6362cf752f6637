"""Counts that need whole tables: inodes, and chunks by redundancy.

For status and metrics, both of which may be asked every second.  A count is made off the loop, by
one asker at a time, and is good for a while that grows with what it cost: at most a tenth of one
core is spent on counting, small clusters always see exact numbers, and none is kept for longer than
AGE_MAX_S (measured with 1 million chunks: 0.5 s, with three of ten servers away 2.6 s).  When a
server comes or goes, everything is counted anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from dfswire.status import ChunkTotals
from metad.copies import redundancy
from metad.state import State
from metad.storage.database import Database

AGE_PER_COST = 10.0
AGE_MAX_S = 5.0  # what is under-replicated must be visible within 10 s


@dataclass(frozen=True)
class Counted:
    """What was in the tables at one moment."""

    inodes: int
    chunks: ChunkTotals


class Totals:
    """See the module's text."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._lock = trio.Lock()
        self._counted: Counted | None = None
        self._of: object = None  # what it was counted with
        self._good_until_s = 0.0
        self.counts = 0
        """How often everything was counted."""

    async def get(self) -> Counted:
        """The numbers of now, or of a short while ago."""
        async with self._lock:
            began_s = self._state.clock()
            live = frozenset(self._state.servers.live_disks(began_s))
            wanted = {key: each.replicas for key, each in self._state.policies.all().items()}
            of = (live, wanted)
            if self._counted is None or of != self._of or began_s >= self._good_until_s:
                self._counted = await self._count(live, wanted)
                self._of = of
                now = self._state.clock()
                self._good_until_s = now + min(AGE_PER_COST * (now - began_s), AGE_MAX_S)
            return self._counted

    async def _count(self, live: frozenset[str], wanted: dict[int, int]) -> Counted:
        def count(db: Database) -> Counted:
            (inodes,) = db.read("SELECT count(*) FROM inode")[0]
            return Counted(inodes, redundancy.totals(db, live, wanted))

        self.counts += 1
        return await self._state.db.read_in_thread(count)
