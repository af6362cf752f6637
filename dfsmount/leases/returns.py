"""How an exclusive lease ends: recalled, idle for long, or along with the last commit.

Before it is given back the operations under way end, the kernel's dirty pages and what is buffered
are stored; meanwhile a gate keeps others from writing.  exclusive.py hands the recalls over, the
mutations say when a commit may carry the end of a lease.
"""

from __future__ import annotations

import logging
from typing import Protocol

import trio

from dfsmount.leases.held import Held, HeldLeases
from dfsmount.remote.metaclient import MetaClient
from dfswire.errors import DFSError, SessionLost
from dfswire.messages import Lease

log = logging.getLogger(__name__)

SHARED_S = 3.0  # after a recall: who looked once will look again, and then finds nothing to recall
PAUSE_S = 0.5  # a soft mount gives up; then once more


class Contents(Protocol):
    """What is changed under a lease and must be stored before it ends."""

    async def write_back(self, inode: int) -> None:
        """The kernel's dirty pages come as writes now, under the lease."""

    async def store(self, inode: int) -> None:
        """Commit what is buffered, or lose it."""

    def is_dirty(self, inode: int) -> bool: ...


class Returns:
    """The ends of one client's leases.  `contents` must be set before the first grant.

    `hard`: a commit that is sent is answered some day.  Only then may it carry the end of a lease.
    """

    def __init__(
        self, meta: MetaClient, table: HeldLeases, nursery: trio.Nursery, *, hard: bool
    ) -> None:
        self.contents: Contents | None = None
        self._meta = meta
        self._table = table
        self._nursery = nursery
        self._hard = hard
        self._shared_until: dict[int, float] = {}

    def is_shared(self, inode: int) -> bool:
        """Did others look at this inode a moment ago?"""
        return trio.current_time() < self._shared_until.get(inode, 0.0)

    def closed(self, inode: int) -> None:
        """Its last handle is closed and nothing is dirty: the lease may go."""
        self._shared_until.pop(inode, None)
        if self._table.leased(inode) is not None:
            self._table.idle.add(inode, trio.current_time())

    def is_dirty(self, inode: int) -> bool:
        return self._contents.is_dirty(inode)

    async def run(self) -> None:
        """Give back what is idle.  Ends by cancellation."""
        while True:
            await self._end_idle(await self._table.idle.due())

    # Along with a commit

    def begin(self, inode: int) -> Lease | None:
        """A commit of all that is dirty is about to be sent: the lease that may end with it.

        If there is one, nobody writes until `end`.
        """
        held = self._table.get(inode)
        if not self._hard or held is None or held.lease is None or held.users:
            return None
        if not held.ending:
            if held.gate is not None or held.taken or held.recalled:
                return None
            held.gate = trio.Event()
        return held.lease

    def end(self, lease: Lease, done: bool) -> None:
        """The commit was answered; `done`: and has happened."""
        held = self._table.at(lease.inode)
        if done:
            self._table.ended(held, lease)
        if held.ending:
            return
        if held.lease is not None:  # nobody knows
            held.ending = True
            self._nursery.start_soon(self._finish, held)
        else:
            self._table.open(held)

    # Recalls

    def obey_soon(self, held: Held) -> None:
        if held.inode not in self._table.idle:
            self._shared_until[held.inode] = trio.current_time() + SHARED_S
        if not held.recalled:
            held.recalled = True
            self._nursery.start_soon(self._obey, held)

    async def _obey(self, held: Held) -> None:
        """Obey a recall.

        The kernel comes first, while writing is still allowed: it waits for writes under way, and
        its dirty pages come as writes.  Then the gate is closed, and nothing that follows waits for
        the kernel or for another client.
        """
        await self._contents.write_back(held.inode)
        while held.gate is not None:
            await held.gate.wait()
        held.recalled = False
        if held.lease is None:
            self._table.drop(held)
            return
        held.gate, held.ending = trio.Event(), True
        await self._finish(held)

    async def _finish(self, held: Held) -> None:
        """The gate is closed: store everything, give the lease back, open the gate."""
        while held.users:
            await held.unused.wait()
        await self._contents.store(held.inode)
        lease = held.lease
        if lease is not None:
            await self.tell([lease])
            self._table.ended(held, lease)
        self._table.open(held)

    async def tell(self, leases: list[Lease]) -> None:
        """Give leases back, until metad has heard it."""
        while True:
            try:
                await self._meta.give_back(leases)
            except SessionLost:
                return  # they ended with it
            except DFSError as problem:
                log.info("leases not given back yet: %s", problem)
                await trio.sleep(PAUSE_S)
            else:
                return

    async def _end_idle(self, inodes: list[int]) -> None:
        ending: list[tuple[Held, Lease]] = []
        for inode in inodes:
            held = self._table.at(inode)
            if held.lease is not None and held.gate is None and not (held.recalled or held.users):
                held.gate = trio.Event()
                ending.append((held, held.lease))
        if ending:
            await self.tell([lease for _, lease in ending])
        for held, lease in ending:
            self._table.ended(held, lease)
            self._table.open(held)

    @property
    def _contents(self) -> Contents:
        assert self.contents is not None, "not assembled yet"
        return self.contents
