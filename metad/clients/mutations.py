"""Mutations as clients see them: told to everyone else, executed once, then answered.

A batch is executed in a group commit, once nothing that it touches is leased to another session and
nobody else may have something in his caches that it makes untrue.  That is found out by executing
it: if others must be told, this is undone, and done anew when they all have confirmed or are
fenced.  Then its effects are announced in the order of execution (executions.py), and its reply
goes out when who must hear of it afterwards has confirmed too.  A repeated batch gets the same
reply, and never earlier than that.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import trio

from dfswire.batches import Batch, BatchReply, OpResult
from dfswire.errors import Leased, NoEntry
from dfswire.operations import AnyOperation, Release
from metad.clients import batches
from metad.clients.batches import Executed
from metad.clients.executions import Execution, Executions, told_by
from metad.clients.recalls import Recalls, Wait
from metad.clients.room import promisable_bytes
from metad.clients.sessioncalls import Clients, told_fleetingly
from metad.clients.touched import touched
from metad.leases.table import ATTR, DATA, NAMES, Blocked
from metad.names import namespace
from metad.names.effects import Effects
from metad.sessions.events import Delivery
from metad.state import State

OWN = ""  # the session of changes that metad makes itself
TOGETHER_S = 1.0  # operations in one batch wait so long for what only one of them has to wait for


class _MustWait(Exception):
    """An operation must wait: what it is about is leased to somebody, or somebody is before it."""

    def __init__(self, blocked: Blocked, seen: int) -> None:
        super().__init__()
        self.blocked = blocked
        self.seen = seen  # tasks run between the look and the waiting: what changes then counts


class _MustTell(Exception):
    """Others had to be told first: `delivery` is over when they have forgotten it."""

    def __init__(self, delivery: Delivery) -> None:
        super().__init__()
        self.delivery = delivery


class Mutations:
    """The handler of meta.batch, and changes that metad makes by itself."""

    def __init__(
        self, state: State, clients: Clients, recalls: Recalls, executions: Executions
    ) -> None:
        self._state = state
        self._clients = clients
        self._recalls = recalls
        self._executions = executions
        clients.on_end.append(self.forget_session)
        self._under_way: dict[str, dict[int, Execution]] = {}  # session -> sequence

    async def execute(self, batch: Batch) -> BatchReply:
        """Execute (or repeat the answer of) a batch.  Raises SessionLost, Stale, NoSpace."""
        self._clients.renew(batch.session)
        under_way = self._under_way.setdefault(batch.session, {})
        while (earlier := under_way.get(batch.sequence)) is not None:
            await earlier.settled.wait()
            if earlier.committed:
                return await self._answer(earlier, repeated=True)
        for answered in [each for each in under_way if each <= batch.acknowledged]:
            del under_way[answered]
        under_way[batch.sequence] = execution = Execution(batch)
        try:
            await self._settle(execution)
        finally:
            if not execution.committed:
                self._executions.end_change(execution)
                self._forget(batch)
            execution.settled.set()
        return await self._answer(execution, repeated=False)

    async def rewrite(self, inode: int, work: Callable[[int, Effects], bool]) -> bool:
        """A change by metad itself of where a file's bytes are, announced like any other.

        `work` gets the time and effects, and returns False when there is nothing to be done (any
        more).  So does this, also when somebody has leased the file: it is asked for.
        """
        state = self._state
        execution = Execution(Batch(session=OWN, sequence=1, operations=[Release(inode=inode)]))

        def change() -> bool:
            blocked = state.leases.obstacles(OWN, {inode: ATTR | DATA})
            if blocked is not None:
                self._recalls.send(blocked)
                return False
            effects = Effects()
            if not work(state.now_ns(), effects):
                return False
            # Where bytes are nobody needs to forget before; it is told when this is announced.
            state.leases.changes.add(execution.change, effects.invalidations)
            execution.executed = Executed(BatchReply(results=[OpResult()]), effects)
            self._executions.add(execution)
            return True

        with trio.CancelScope(shield=True):
            try:
                execution.committed = await state.db.write(change)
            finally:
                self._executions.settle(execution)
                self._executions.end_change(execution)
        return execution.committed

    def forget_session(self, session: str) -> None:
        """The session ended; nobody will ask for its answers again."""
        self._under_way.pop(session, None)

    def _forget(self, batch: Batch) -> None:
        self._under_way.get(batch.session, {}).pop(batch.sequence, None)

    async def _settle(self, execution: Execution) -> None:
        """Commit, once nothing that the batch touches is leased to another session or, if it is
        changed, cached there."""
        batch = execution.batch
        with self._recalls.waiting(batch.session) as wait:
            while not execution.committed:
                wanted: dict[int, int] = {}
                try:
                    # Not cancellable: what is committed must be announced, whether or not anybody
                    # still waits for the answer.  It takes as long as a commit to disk.
                    with trio.CancelScope(shield=True):
                        await self._commit(execution, wait, wanted)
                except _MustWait as problem:
                    await wait.until_changed(problem.blocked, wanted, problem.seen)
                except _MustTell as problem:
                    with trio.move_on_after(_patience_s(batch)) as patience:
                        await problem.delivery.wait()
                    execution.apart = patience.cancelled_caught

    async def _commit(self, execution: Execution, wait: Wait, wanted: dict[int, int]) -> None:
        """Raises _MustWait and _MustTell, with nothing done; `wanted` has the parts that the former
        was about."""
        batch, state = execution.batch, self._state

        def admit(op: AnyOperation) -> Leased | None:
            parts = touched(state.db, op)
            blocked = state.leases.obstacles(batch.session, parts, wait.turn)
            if blocked is None:
                return None
            if batch.no_wait:
                self._recalls.send(blocked)
                return Leased("another client has it exclusively")
            wanted.update(parts)
            raise _MustWait(blocked, self._recalls.changes_seen)

        def work() -> None:
            # It may have ended while this waited, and others may have been granted what it had.
            self._clients.check(batch.session)
            # The loop runs nothing else meanwhile, so no lease is granted before this is over; and
            # none on what it changes before that is announced (see Changes).
            check = _admit_all if state.leases.is_alone(batch.session) else admit
            check = _refuse_all if execution.apart else check
            executed = batches.execute(
                state.db, batch, state.now_ns(), check, lambda: promisable_bytes(state)
            )
            if delivery := self._executions.foretell(execution, executed):
                # Who wants something of this for himself alone from now on comes after it.
                wait.take_place(dict.fromkeys(execution.change.inodes, ATTR | DATA | NAMES))
                raise _MustTell(delivery)
            execution.executed = executed
            self._executions.add(execution)

        try:
            await state.db.write(work)
            execution.committed = True
        finally:
            self._executions.settle(execution)

    async def _answer(self, execution: Execution, *, repeated: bool) -> BatchReply:
        assert execution.executed is not None and execution.delivery is not None
        await execution.delivery.wait()
        self._forget(execution.batch)
        reply = execution.executed.reply
        if repeated or execution.executed.repeated:
            reply = await self._up_to_date(execution.batch, reply)
        else:
            reply = told_fleetingly(reply, execution.fleeting)
        return self._with_leases(execution.batch, reply)

    async def _up_to_date(self, batch: Batch, reply: BatchReply) -> BatchReply:
        """A stored reply, with attributes (and xattrs) as they are now, maybe changed by others."""
        with self._recalls.waiting(batch.session) as wait:
            while True:
                self._clients.check(batch.session)
                told, names = told_by(batch, reply)
                blocked = self._state.leases.obstacles(batch.session, told, wait.turn)
                if blocked is None:
                    fleeting = self._clients.hold(batch.session, told, names)
                    results = [self._refreshed(each) for each in reply.results]
                    return told_fleetingly(BatchReply(results=results), fleeting)
                await wait.until_changed(blocked, told)

    def _with_leases(self, batch: Batch, reply: BatchReply) -> BatchReply:
        """The leases that were asked for, as far as they can be had at this moment.

        They are granted now, when the reply goes out, not while it waited for others to forget.
        """
        if not any(getattr(op, "lease", 0) for op in batch.operations):
            return reply
        results = [
            self._with_lease(batch.session, getattr(op, "lease", 0), result)
            for op, result in zip(batch.operations, reply.results, strict=True)
        ]
        return msgspec.structs.replace(reply, results=results)

    def _with_lease(self, session: str, parts: int, result: OpResult) -> OpResult:
        if not parts or result.fault is not None:
            return result
        inode = result.attrs[0].inode
        lease = self._state.leases.take_if_free(session, inode, parts)
        if lease is not None:
            self._recalls.changed([inode])
        return msgspec.structs.replace(result, lease=lease)

    def _refreshed(self, result: OpResult) -> OpResult:
        attrs = []
        for attr in result.attrs:
            try:
                attrs.append(namespace.getattr_(self._state.db, attr.inode))
            except NoEntry:
                attrs.append(attr)  # gone since: the last that is known of it
        return OpResult(attrs=attrs, fault=result.fault, length=result.length)


def _admit_all(op: AnyOperation) -> None:
    """Nobody has a lease that an operation could contradict."""


def _refuse_all(op: AnyOperation) -> Leased:
    """Somebody is slow to forget, or dead: that must not delay what does not concern him, such as a
    commit that a third client waits for."""
    return Leased("another client has not yet forgotten what this batch changes")


def _patience_s(batch: Batch) -> float:
    """How long a batch may wait as a whole for others to forget."""
    return TOGETHER_S if batch.no_wait and len(batch.operations) > 1 else math.inf
