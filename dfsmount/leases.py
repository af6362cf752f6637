"""What this client holds exclusively: the inodes that it may change at home, unseen by others.

The vfs buffers a write only inside `writing()`, which has the lease asked for when it is not held.
metad recalls a lease when somebody else wants to see the inode; that is obeyed in the background:
operations under way end, the kernel's dirty pages and what is buffered are stored, and the lease is
given back.  Those who want to write meanwhile wait and ask for it anew, and whoever was granted a
lease does at least his one operation with it, so nobody starves.  A write is accepted only while
metad is known to respect the lease; what is dirty is always under a lease that metad was told of.
A grant that comes too late to be worth anything (lategrants.py) is given back, and so is the lease
of a file that was closed a while ago (idleleases.py).
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import Protocol

import trio

from dfsmount.attrcache import AttrCache
from dfsmount.idleleases import IdleLeases
from dfsmount.lategrants import LateGrants
from dfsmount.metaclient import MetaClient
from dfsmount.session import Session
from dfswire.errors import DFSError, SessionLost
from dfswire.messages import Lease, Part

log = logging.getLogger(__name__)

WRITE_PARTS = int(Part.ATTR | Part.DATA)
ALL_PARTS = int(Part.ATTR | Part.DATA | Part.NAMES)  # of a lease: those that are held
SHARED_S = 3.0  # after a recall: who looked once will look again, and then finds nothing to recall
PAUSE_S = 0.5  # a soft mount gives up; then once more


class Contents(Protocol):
    """What is changed under a lease and must be stored before it ends."""

    async def write_back(self, inode: int) -> None:
        """The kernel's dirty pages come as writes now, under the lease."""

    async def store(self, inode: int) -> None:
        """Commit what is buffered, or lose it."""

    def is_dirty(self, inode: int) -> bool: ...


class _Held:
    """One inode that is leased, or about to be."""

    def __init__(self, inode: int) -> None:
        self.inode = inode
        self.lease: Lease | None = None
        self.taken = False  # by a question of its own, not along with a mutation
        self.users = 0
        self.unused = trio.Event()
        self.gate: trio.Event | None = None  # closed until the lease has ended
        self.ending = False  # the gate was closed in order to store everything
        self.asked: trio.Event | None = None  # a task asks; others wait for its answer
        self.recalled = False  # and the gate is not closed yet
        self.waiters = 0  # tasks that want to become users


class Writing:
    """The context of one write; see `Leases.writing`."""

    def __init__(self, leases: Leases, inode: int) -> None:
        self._leases = leases
        self._inode = inode
        self._held: _Held | None = None
        self.through = False  # after the context: the caller must commit before it answers

    async def __aenter__(self) -> Writing:
        self._held = await self._leases.enter(self._inode)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        assert self._held is not None
        self.through = self._leases.leave(self._held)


class Leases:
    """The exclusive leases of one client.  `contents` must be set before the first grant.

    `hard`: a commit that is sent is answered some day.  Only then may it carry the end of a lease.
    """

    def __init__(
        self,
        meta: MetaClient,
        session: Session,
        attrs: AttrCache,
        nursery: trio.Nursery,
        *,
        hard: bool = True,
    ) -> None:
        self.contents: Contents | None = None
        self._meta = meta
        self._session = session
        self._attrs = attrs
        self._nursery = nursery
        self._hard = hard
        self._held: dict[int, _Held] = {}
        self._shared_until: dict[int, float] = {}
        self._idle = IdleLeases()
        self._late = LateGrants()
        self._early: dict[int, Lease] = {}  # recalls that came before the grant was there

    # For those who write

    def writing(self, inode: int) -> Writing:
        """`async with leases.writing(inode):` around one operation that leaves something dirty.

        Raises NoEntry, and Unavailable on a soft mount.
        """
        return Writing(self, inode)

    async def enter(self, inode: int) -> _Held:
        held = self._held.get(inode)
        if held is None or held.lease is None or held.gate is not None or not self._in_time():
            held = await self._wait(inode)
        else:
            held.users += 1
        self._idle.discard(inode)
        return held

    def leave(self, held: _Held) -> bool:
        """True when what was written must not wait for its commit."""
        held.users -= 1
        if not held.users:
            held.unused.set()
            held.unused = trio.Event()
        if held.lease is None or not self._in_time():
            return True  # it ended meanwhile: who looks now is not kept waiting for a recall
        return trio.current_time() < self._shared_until.get(held.inode, 0.0)

    def wanted(self, inode: int) -> int:
        """The parts to be asked for along with a mutation of an inode that is written next."""
        held = self._held.get(inode)
        if held is None or (held.lease is None and held.gate is None and held.asked is None):
            return WRITE_PARTS
        return 0

    def closed(self, inode: int) -> None:
        """Its last handle is closed and nothing is dirty: the lease may go."""
        self._shared_until.pop(inode, None)
        held = self._held.get(inode)
        if held is not None and held.lease is not None:
            self._idle.add(inode, trio.current_time())

    def covers(self, inode: int) -> bool:
        """Is the inode leased?"""
        held = self._held.get(inode)
        return held is not None and held.lease is not None

    # Grants

    def asking(self) -> AbstractContextManager[int]:
        """Around a question or mutation that may bring a lease: the token for `granted`."""
        return self._late.asking()

    def granted(self, lease: Lease, token: int, *, taken: bool = False) -> bool:
        """metad has granted a lease; False when that is not (or no longer) worth anything."""
        held = self._held.get(lease.inode)
        if held is not None and held.lease is not None and held.lease.number >= lease.number:
            return True  # a newer one came first
        if self._late.was_returned(lease):
            return False
        if self._late.is_void(lease, token) or not self._session.is_followed:
            self._nursery.start_soon(self._tell, [lease])
            return False
        held = self._at(lease.inode)
        held.lease, held.taken = lease, taken
        early = self._early.get(lease.inode)
        if early is not None and early.number <= lease.number:
            del self._early[lease.inode]
            self._obey_soon(held)
        return True

    # Ends

    def recall(self, lease: Lease) -> None:
        """Somebody waits for parts of this lease; all of it is given back.  Returns at once."""
        lease = Lease(inode=lease.inode, parts=ALL_PARTS, number=lease.number)
        held = self._held.get(lease.inode)
        if held is not None and held.lease is not None:
            if lease.number >= held.lease.number:
                held.lease = lease
                self._obey_soon(held)
        elif held is not None and held.asked is not None:
            self._early[lease.inode] = lease  # of use for one operation, when it is there
        else:
            self._late.returned(lease)
            self._nursery.start_soon(self._tell, [lease])

    def begin_return(self, inode: int) -> Lease | None:
        """A commit of all that is dirty is about to be sent: the lease that may end with it.

        If there is one, nobody writes until `end_return`.
        """
        held = self._held.get(inode)
        if not self._hard or held is None or held.lease is None or held.users:
            return None
        if not held.ending:
            if held.gate is not None or held.taken or held.recalled:
                return None
            held.gate = trio.Event()
        return held.lease

    def end_return(self, lease: Lease, done: bool) -> None:
        """The commit was answered; `done`: and has happened."""
        held = self._held[lease.inode]
        if done:
            self._forget_lease(held, lease)
        if held.ending:
            return
        if held.lease is not None:  # nobody knows
            held.ending = True
            self._nursery.start_soon(self._finish, held)
        else:
            self._open(held)

    def keep_used(self) -> list[Lease]:
        """The event stream is about to be opened again: the leases in use; all others end here."""
        self._late.all_ended()
        kept = []
        for held in list(self._held.values()):
            if held.lease is None:
                continue
            if held.users or self._contents.is_dirty(held.inode):
                kept.append(held.lease)
            else:
                held.lease = None
                self._drop(held)
        return kept

    def stream_opened(self) -> None:
        """What was asked before metad had that list is void."""
        self._late.all_ended()

    def lost(self) -> None:
        """The session ended, and all its leases."""
        self._late.all_ended()
        self._early.clear()
        for held in list(self._held.values()):
            held.lease = None
            self._drop(held)

    async def run(self) -> None:
        """Give back what is idle.  Ends by cancellation."""
        while True:
            await self._return_idle(await self._idle.due())

    # Inside

    @property
    def _contents(self) -> Contents:
        assert self.contents is not None, "not assembled yet"
        return self.contents

    def _in_time(self) -> bool:
        return self._session.contact_left_s() > 0

    def _at(self, inode: int) -> _Held:
        held = self._held.get(inode)
        if held is None:
            held = self._held[inode] = _Held(inode)
        return held

    def _drop(self, held: _Held) -> None:
        """Forget an inode of which nothing is left."""
        if held.lease is None:
            self._idle.discard(held.inode)
        if held.users or held.waiters or held.recalled or held.lease or held.gate is not None:
            return
        if self._held.get(held.inode) is held:
            del self._held[held.inode]

    def _forget_lease(self, held: _Held, ended: Lease) -> None:
        """It has ended at metad; a newer one, which a recall has spoken of, has not."""
        if held.lease is not None and held.lease.number > ended.number:
            return
        held.lease = None
        self._late.ended(held.inode)

    def _open(self, held: _Held) -> None:
        gate, held.gate, held.ending = held.gate, None, False
        if gate is not None:
            gate.set()
        self._drop(held)

    async def _wait(self, inode: int) -> _Held:
        """Wait for the lease, asking for it if need be, and become a user of it."""
        held = self._at(inode)
        held.waiters += 1
        try:
            while True:
                if not self._in_time():
                    await self._meta.heard()
                elif held.gate is not None:
                    await held.gate.wait()
                elif held.lease is None:
                    await self._ask(held)
                else:
                    held.users += 1
                    return held
        finally:
            held.waiters -= 1
            self._drop(held)

    async def _ask(self, held: _Held) -> None:
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

    # Obeying

    def _obey_soon(self, held: _Held) -> None:
        if held.inode not in self._idle:
            self._shared_until[held.inode] = trio.current_time() + SHARED_S
        if not held.recalled:
            held.recalled = True
            self._nursery.start_soon(self._obey, held)

    async def _obey(self, held: _Held) -> None:
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
            self._drop(held)
            return
        held.gate, held.ending = trio.Event(), True
        await self._finish(held)

    async def _finish(self, held: _Held) -> None:
        """The gate is closed: store everything, give the lease back, open the gate."""
        while held.users:
            await held.unused.wait()
        await self._contents.store(held.inode)
        lease = held.lease
        if lease is not None:
            await self._tell([lease])
            self._forget_lease(held, lease)
        self._open(held)

    async def _tell(self, leases: list[Lease]) -> None:
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

    async def _return_idle(self, inodes: list[int]) -> None:
        ending: list[tuple[_Held, Lease]] = []
        for inode in inodes:
            held = self._held[inode]
            if held.lease is not None and held.gate is None and not (held.recalled or held.users):
                held.gate = trio.Event()
                ending.append((held, held.lease))
        if ending:
            await self._tell([lease for _, lease in ending])
        for held, lease in ending:
            self._forget_lease(held, lease)
            self._open(held)
