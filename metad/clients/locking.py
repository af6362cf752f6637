"""The handlers of the lock.* calls: who may ask, how long a call waits, and who is woken.

Locks live in memory.  After a restart every session that metad finds in its database may hold any
lock, so nothing is granted (and no question answered) until each of them has opened its stream,
which says what it holds, or is fenced.  Unlocking does not wait for that.

The locks of a session that ends are free when its row is gone from the database: a commit of it
that was under way has been made by then, or is refused.
"""

from __future__ import annotations

import trio

from dfswire.errors import Unavailable
from dfswire.info import LockInfo
from dfswire.locks import (
    LOCK_END_MAX,
    CancelLock,
    GetLock,
    GetLockReply,
    LockAnswer,
    LockKind,
    LockOutcome,
    LockType,
    Range,
    SetLock,
)
from dfswire.metadata import FollowEvents
from metad.clients.sessioncalls import Clients
from metad.locks.ledger import Ledger, request_of
from metad.locks.space import Owner, Request
from metad.locks.table import LockTable
from metad.sessions.events import Delivery
from metad.state import State

WAIT_S = 3.0  # then "still waiting": well within the 5 s after which clients give up a call
SHOWN_MAX = 1000  # locks of one inode, to people


class Locking:
    """See the module's text.  Made after `clients.restore`."""

    def __init__(self, state: State, clients: Clients) -> None:
        self.table = LockTable(state.config.session_locks_max, self._wake)
        self._clients = clients
        self._ledger = Ledger(self.table)
        self._waiting: dict[Request, trio.Event] = {}
        self._restored: Delivery = state.streams.wait_for_reopening(state.leases.unsynced())
        clients.on_follow.append(self._followed)
        clients.on_gone.append(self._ledger.end)

    async def set(self, message: SetLock) -> LockAnswer:
        """Lock or unlock; WAITING when it takes longer.  Raises SessionLost, Stale."""
        self._clients.check(message.session)
        self._ledger.check(message.session)
        request: Request | None = None
        with trio.move_on_after(WAIT_S):
            if message.lock.range.type != LockType.UNLOCK:
                await self._restored.wait()
            request = self._ledger.set(message)
            await self._settled(request)
        self._clients.check(message.session)
        if request is None:
            return LockAnswer(outcome=LockOutcome.WAITING)
        return _answer(request)

    async def cancel(self, message: CancelLock) -> LockAnswer:
        self._clients.check(message.session)
        return _answer(self._ledger.cancel(message.session, message.number))

    async def get(self, message: GetLock) -> GetLockReply:
        """Raises Unavailable while not all locks are known."""
        with trio.move_on_after(WAIT_S):
            await self._restored.wait()
        if not self._restored.done:
            raise Unavailable("not all clients have told yet what they have locked")
        self._clients.check(message.session)
        found = self.table.blocker(request_of(message.session, message.lock))
        if found is None:
            return GetLockReply()
        owner, held = found
        client = self._clients.find(owner.session)
        return GetLockReply(range=held, host=client.host if client is not None else "")

    def of_inode(self, inode: int) -> list[LockInfo]:
        """For people: who has it, then who waits."""
        held = [
            self._describe(kind, owner, held, waits=False)
            for kind, owner, held in self.table.holders(inode)
        ]
        waiting = [
            self._describe(each.kind, each.owner, each.wanted, waits=True)
            for each in self.table.waiting(inode)
        ]
        return (held + waiting)[:SHOWN_MAX]

    def _describe(self, kind: LockKind, owner: Owner, range_: Range, *, waits: bool) -> LockInfo:
        client = self._clients.find(owner.session)
        return LockInfo(
            kind="flock" if kind == LockKind.FLOCK else "fcntl",
            type="write" if range_.type == LockType.WRITE else "read",
            waits=waits,
            start=range_.start,
            end=range_.end if range_.end != LOCK_END_MAX else None,
            host=client.host if client is not None else "",
            mount_point=client.mount_point if client is not None else "",
            pid=range_.pid,
        )

    def _followed(self, request: FollowEvents) -> None:
        self._ledger.connect(request.session, request.locks)

    async def _settled(self, request: Request) -> None:
        if request.outcome == LockOutcome.WAITING:
            await self._waiting.setdefault(request, trio.Event()).wait()

    def _wake(self, request: Request) -> None:
        if (event := self._waiting.pop(request, None)) is not None:
            event.set()


def _answer(request: Request) -> LockAnswer:
    return LockAnswer(outcome=request.outcome, stamp=request.stamp)
