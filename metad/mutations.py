"""Mutations as clients see them: executed once, announced to everyone else, then answered.

A batch is executed in a group commit; its effects are applied to the leases in exactly the order
of execution, whichever task wakes first; and its reply goes out only when every other session that
might have something stale has confirmed or is fenced.  A repeated batch gets the same reply, and
never earlier than that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import trio

from dfswire.errors import NoEntry
from dfswire.operations import AnyOperation, Batch, BatchReply, Commit, OpResult
from metad import batches, namespace
from metad.batches import Executed
from metad.clients import Clients
from metad.events import Delivery
from metad.state import State

_INODE_FIELDS = ("inode", "parent", "new_parent")


class _Execution:
    """One batch on its way."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.executed: Executed | None = None  # not yet committed
        self.delivery: Delivery | None = None  # its effects are announced
        self.committed = False
        self.settled = trio.Event()  # committed or failed


class Mutations:
    """The handler of meta.batch.

    `unused` is told of unlinked inodes that nobody has open; `stored` of chunks that are now on
    the disks that they name.
    """

    def __init__(
        self,
        state: State,
        clients: Clients,
        unused: Callable[[Iterable[int]], None],
        stored: Callable[[Iterable[bytes]], None],
    ) -> None:
        self._state = state
        self._clients = clients
        self._unused = unused
        self._stored = stored
        clients.on_end.append(self.forget_session)
        self._unannounced: deque[_Execution] = deque()  # in the order of execution
        self._under_way: dict[str, dict[int, _Execution]] = {}  # session -> sequence

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
        under_way[batch.sequence] = execution = _Execution(batch)
        # Not cancellable: what is committed must be announced, whether or not anybody still waits
        # for the answer.  It takes as long as a commit to disk.
        with trio.CancelScope(shield=True):
            await self._commit(execution)
        return await self._answer(execution, repeated=False)

    def forget_session(self, session: str) -> None:
        """The session ended; nobody will ask for its answers again."""
        self._under_way.pop(session, None)

    def _forget(self, batch: Batch) -> None:
        self._under_way.get(batch.session, {}).pop(batch.sequence, None)

    async def _commit(self, execution: _Execution) -> None:
        batch, state = execution.batch, self._state
        self._clients.hold(batch.session, _named(batch.operations))

        def work() -> None:
            execution.executed = batches.execute(state.db, batch, state.now_ns())
            self._unannounced.append(execution)

        try:
            await state.db.write(work)
            execution.committed = True
        finally:
            if not execution.committed:
                self._forget(batch)
                if execution in self._unannounced:
                    self._unannounced.remove(execution)
            else:
                self._announce_up_to(execution)
            execution.settled.set()

    def _announce_up_to(self, execution: _Execution) -> None:
        """Announce what was executed before this one too: its task has not woken up yet.

        (Should its commit have failed, something was announced that did not happen: harmless.)
        """
        while execution.delivery is None:
            self._announce(self._unannounced.popleft())

    def _announce(self, execution: _Execution) -> None:
        assert execution.executed is not None
        session, effects = execution.batch.session, execution.executed.effects
        leases = self._state.leases
        self._clients.hold(session, _told(execution.executed.reply))
        self._stored(_stored_chunks(execution.batch.operations))
        unused = []
        for inode in effects.orphaned:
            held = inode in effects.held and session in leases
            if leases.orphan(inode, session, held=held):
                unused.append(inode)
        plan = leases.invalidate(effects.invalidations, session)
        unused += [inode for inode in effects.released if leases.release(session, inode)]
        self._unused(unused)
        if execution.executed.repeated:
            # Executed by an earlier metad, which may not have told anybody.
            others = [each for each in leases.unsynced() if each != session]
            execution.delivery = self._state.streams.wait_for_reopening(others)
        else:
            execution.delivery = self._state.streams.push(plan)

    async def _answer(self, execution: _Execution, *, repeated: bool) -> BatchReply:
        assert execution.executed is not None and execution.delivery is not None
        await execution.delivery.wait()
        self._forget(execution.batch)
        reply = execution.executed.reply
        if repeated or execution.executed.repeated:
            self._clients.check(execution.batch.session)
            return self._up_to_date(reply, execution.batch.session)
        return reply

    def _up_to_date(self, reply: BatchReply, session: str) -> BatchReply:
        """A stored reply, with attributes as they are now: others may have changed them since."""
        self._clients.hold(session, _told(reply))
        return BatchReply(results=[self._refreshed(result) for result in reply.results])

    def _refreshed(self, result: OpResult) -> OpResult:
        attrs = []
        for attr in result.attrs:
            try:
                attrs.append(namespace.getattr_(self._state.db, attr.inode))
            except NoEntry:
                attrs.append(attr)  # gone since: the last that is known of it
        return OpResult(attrs=attrs, fault=result.fault)


def _named(operations: Iterable[AnyOperation]) -> Iterator[int]:
    for operation in operations:
        for name in _INODE_FIELDS:
            inode = getattr(operation, name, None)
            if inode is not None:
                yield inode


def _told(reply: BatchReply) -> list[int]:
    return [attr.inode for result in reply.results for attr in result.attrs]


def _stored_chunks(operations: Iterable[AnyOperation]) -> list[bytes]:
    return [
        written.chunk
        for operation in operations
        if isinstance(operation, Commit)
        for written in operation.chunks
    ]
