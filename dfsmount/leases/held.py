"""The inodes of which this client has an exclusive lease, or is about to have one.

exclusive.py lets writers in, returns.py sees the leases off; this is the table that both work on.
Nothing here speaks to metad.
"""

from __future__ import annotations

import trio

from dfsmount.leases.idle import IdleLeases
from dfsmount.leases.lategrants import LateGrants
from dfswire.messages import Lease


class Held:
    """One inode that is leased, or about to be."""

    def __init__(self, inode: int) -> None:
        self.inode = inode
        self.lease: Lease | None = None
        self.taken = False  # by a question of its own, not along with a mutation
        self.first = 0  # the number of the lease that came with the inode itself
        self.users = 0
        self.unused = trio.Event()
        self.gate: trio.Event | None = None  # closed until the lease has ended
        self.ending = False  # the gate was closed in order to store everything
        self.asked: trio.Event | None = None  # a task asks; others wait for its answer
        self.recalled = False  # and the gate is not closed yet
        self.waiters = 0  # tasks that want to become users

    def leave(self) -> None:
        """One user less."""
        self.users -= 1
        if not self.users:
            self.unused.set()
            self.unused = trio.Event()


class HeldLeases:
    """The table.  `idle` are those that nobody uses, `late` tells which grants are void."""

    def __init__(self) -> None:
        self.idle = IdleLeases()
        self.late = LateGrants()
        self._held: dict[int, Held] = {}

    def get(self, inode: int) -> Held | None:
        return self._held.get(inode)

    def leased(self, inode: int) -> Held | None:
        """The same, if there is a lease."""
        held = self._held.get(inode)
        return held if held is not None and held.lease is not None else None

    def at(self, inode: int) -> Held:
        """Whoever makes an entry drops it, too."""
        held = self._held.get(inode)
        if held is None:
            held = self._held[inode] = Held(inode)
        return held

    def all(self) -> list[Held]:
        return list(self._held.values())

    def drop(self, held: Held) -> None:
        """Forget an inode of which nothing is left."""
        if held.lease is None:
            self.idle.discard(held.inode)
        if held.users or held.waiters or held.recalled or held.lease or held.gate is not None:
            return
        if self._held.get(held.inode) is held:
            del self._held[held.inode]

    def ended(self, held: Held, ended: Lease) -> None:
        """It has ended at metad; a newer one, which a recall has spoken of, has not."""
        if held.lease is not None and held.lease.number > ended.number:
            return
        held.lease = None
        self.late.ended(held.inode)

    def open(self, held: Held) -> None:
        """Whoever waits at the gate goes on, and asks for the lease anew."""
        gate, held.gate, held.ending = held.gate, None, False
        if gate is not None:
            gate.set()
        self.drop(held)
