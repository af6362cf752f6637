"""What this client holds exclusively: the inodes that it may change at home, unseen by others.

The vfs buffers a write only inside `writing()`, which has the lease asked for when it is not held.
metad recalls a lease when somebody else wants to see the inode; that is obeyed in the background:
operations under way end, the kernel's dirty pages and what is buffered are stored, and the lease is
given back.  Those who want to write meanwhile wait and ask for it anew, and whoever was granted a
lease does at least his one operation with it, so nobody starves.  A write is accepted only while
metad is known to respect the lease; what is dirty is always under a lease that metad was told of.
A grant that comes too late to be worth anything (lategrants.py) is given back, and so is the lease
of a file that was closed a while ago (idle.py).
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import trio

from dfsmount.leases.attrcache import AttrCache
from dfsmount.leases.held import Held, HeldLeases
from dfsmount.leases.returns import Returns
from dfsmount.remote.metaclient import MetaClient
from dfsmount.remote.session import Session
from dfswire.errors import SessionLost
from dfswire.messages import Lease, Part

WRITE_PARTS = int(Part.ATTR | Part.DATA)
ALL_PARTS = int(Part.ATTR | Part.DATA | Part.NAMES)  # of a lease: those that are held


class Writing:
    """The context of one write; see `Leases.writing`."""

    def __init__(self, leases: Leases, inode: int) -> None:
        self._leases = leases
        self._inode = inode
        self._held: Held | None = None
        self.through = False  # after the context: the caller must commit before it answers

    async def __aenter__(self) -> Writing:
        self._held = await self._leases.enter(self._inode)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        assert self._held is not None
        self.through = self._leases.leave(self._held)


class Leases:
    """The exclusive leases of one client, and `returns`, by which they end."""

    def __init__(
        self,
        meta: MetaClient,
        session: Session,
        attrs: AttrCache,
        nursery: trio.Nursery,
        *,
        hard: bool = True,
    ) -> None:
        self._table = HeldLeases()
        self.returns = Returns(meta, self._table, nursery, hard=hard)
        self._meta = meta
        self._session = session
        self._attrs = attrs
        self._nursery = nursery
        self._early: dict[int, Lease] = {}  # recalls that came before the grant was there

    # For those who write

    def writing(self, inode: int) -> Writing:
        """`async with leases.writing(inode):` around one operation that leaves something dirty.

        Raises NoEntry, and Unavailable on a soft mount.
        """
        return Writing(self, inode)

    async def enter(self, inode: int) -> Held:
        held = self._table.get(inode)
        if held is None or held.lease is None or held.gate is not None or not self._in_time():
            held = await self._wait(inode)
        else:
            held.users += 1
        self._table.idle.discard(inode)
        return held

    def leave(self, held: Held) -> bool:
        """True when what was written must not wait for its commit."""
        held.leave()
        if held.lease is None or not self._in_time():
            return True  # it ended meanwhile: who looks now is not kept waiting for a recall
        return self.returns.is_shared(held.inode)

    def wanted(self, inode: int) -> int:
        """The parts to be asked for along with a mutation of an inode that is written next."""
        held = self._table.get(inode)
        if held is None or (held.lease is None and held.gate is None and held.asked is None):
            return WRITE_PARTS
        return 0

    def covers(self, inode: int) -> bool:
        """Is the inode leased?"""
        return self._table.leased(inode) is not None

    def since_creation(self, inode: int) -> bool:
        """Is it leased, and was so from the moment when this client made it?  Then nobody else can
        have learnt anything of it."""
        held = self._table.leased(inode)
        return held is not None and held.lease is not None and held.lease.number == held.first

    # Grants

    def asking(self) -> AbstractContextManager[int]:
        """Around a question or mutation that may bring a lease: the token for `granted`."""
        return self._table.late.asking()

    def granted(self, lease: Lease, token: int, *, taken: bool = False, new: bool = False) -> bool:
        """metad has granted a lease; False when that is not (or no longer) worth anything.

        `taken` by a question of its own; `new` with the inode, which did not exist before.
        """
        held = self._table.get(lease.inode)
        if held is not None and held.lease is not None and held.lease.number >= lease.number:
            return True  # a newer one came first
        if self._table.late.was_returned(lease):
            return False
        if self._table.late.is_void(lease, token) or not self._session.stream.is_open:
            self._nursery.start_soon(self.returns.tell, [lease])
            return False
        held = self._table.at(lease.inode)
        held.lease, held.taken = lease, taken
        held.first = lease.number if new else 0
        early = self._early.get(lease.inode)
        if early is not None and early.number <= lease.number:
            del self._early[lease.inode]
            self.returns.obey_soon(held)
        return True

    # Ends

    def recall(self, lease: Lease) -> None:
        """Somebody waits for parts of this lease; all of it is given back.  Returns at once."""
        lease = Lease(inode=lease.inode, parts=ALL_PARTS, number=lease.number)
        held = self._table.get(lease.inode)
        if held is not None and held.lease is not None:
            if lease.number >= held.lease.number:
                held.lease = lease
                self.returns.obey_soon(held)
        elif held is not None and held.asked is not None:
            self._early[lease.inode] = lease  # of use for one operation, when it is there
        else:
            self._table.late.returned(lease)
            self._nursery.start_soon(self.returns.tell, [lease])

    def keep_used(self) -> list[Lease]:
        """The event stream is about to be opened again: the leases in use; all others end here."""
        self._table.late.all_ended()
        kept = []
        for held in self._table.all():
            if held.lease is None:
                continue
            if held.users or self.returns.is_dirty(held.inode):
                kept.append(held.lease)
            else:
                held.lease = None
                self._table.drop(held)
        return kept

    def stream_opened(self) -> None:
        """What was asked before metad had that list is void."""
        self._table.late.all_ended()

    def lost(self) -> None:
        """The session ended, and all its leases."""
        self._table.late.all_ended()
        self._early.clear()
        for held in self._table.all():
            held.lease = None
            self._table.drop(held)

    # Inside

    def _in_time(self) -> bool:
        return self._session.contact_left_s() > 0

    async def _wait(self, inode: int) -> Held:
        """Wait for the lease, asking for it if need be, and become a user of it."""
        held = self._table.at(inode)
        held.waiters += 1
        try:
            while True:
                if not self._in_time():
                    await self._meta.heard()
                elif held.gate is not None:
                    await self._meta.passed(held.gate)
                elif held.lease is None:
                    await self._ask(held)
                else:
                    held.users += 1
                    return held
        finally:
            held.waiters -= 1
            self._table.drop(held)

    async def _ask(self, held: Held) -> None:
        """Ask metad for the lease, or wait for the task that does.  Whoever asks is the first user,
        because nothing is awaited between the answer and the caller's next look."""
        if held.asked is not None:
            await held.asked.wait()
            return
        held.asked = trio.Event()
        try:
            await self._meta.told()
            with self.asking() as token, self._attrs.asking() as attr_token:
                try:
                    reply = await self._meta.take_lease(held.inode, WRITE_PARTS)
                except SessionLost:
                    return  # to be asked again under the new one
                if self.granted(reply.lease, token, taken=True):
                    self._attrs.put_attr(reply.attr, attr_token)
        finally:
            held.asked.set()
            held.asked = None
            if (early := self._early.pop(held.inode, None)) is not None:
                self.recall(early)  # the answer that spoke of that lease was lost
