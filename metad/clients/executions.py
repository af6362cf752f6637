"""Batches that were executed, and are announced to everyone else in exactly that order.

A mutation is executed in a group commit with others.  Whichever of their tasks wakes first, the
effects are applied to leases and orphans in the order of execution; until then no lease is granted
on what was changed.  mutations.py adds each execution in its transaction, settles it after the
commit, and answers when its delivery is over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import trio

from dfswire.batches import Batch, BatchReply
from dfswire.messages import Invalidated, Invalidation
from dfswire.operations import AnyOperation, Commit, Create
from metad.clients.batches import Executed
from metad.clients.recalls import Recalls
from metad.clients.sessioncalls import Clients
from metad.leases.changes import NOTHING, Change
from metad.leases.table import ATTR, DATA, NAMES
from metad.sessions.events import Delivery
from metad.state import State

_PLACES = (("parent", "name"), ("new_parent", "new_name"))  # fields of operations


class Execution:
    """One batch on its way."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.change = Change(batch.session)  # what others are told before it is executed
        self.executed: Executed | None = None  # not yet committed
        self.apart = False  # it is not executed; its operations are to be asked for one by one
        self.fleeting = NOTHING  # what the client must not keep of the answer
        self.delivery: Delivery | None = None  # its effects are announced
        self.committed = False
        self.settled = trio.Event()  # committed, failed or given up


class Executions:
    """Those that are executed and not yet announced.

    `unused` is told of unlinked inodes that nobody has open; `stored` of chunks that are now on
    the disks that they name.
    """

    def __init__(
        self,
        state: State,
        clients: Clients,
        recalls: Recalls,
        unused: Callable[[Iterable[int]], None],
        stored: Callable[[Iterable[bytes]], None],
    ) -> None:
        self._state = state
        self._clients = clients
        self._recalls = recalls
        self._unused = unused
        self._stored = stored
        self._unannounced: deque[Execution] = deque()  # in the order of execution

    def add(self, execution: Execution) -> None:
        """It is executed, in a transaction that is not committed yet."""
        self._unannounced.append(execution)

    def foretell(self, execution: Execution, executed: Executed) -> Delivery | None:
        """Tell everybody else what is about to change; None when nobody needs to be told.

        Until it is announced nobody else keeps anything of it, or leases it; nor, once it is
        executed, of what the answer speaks of.  (What is undone made nothing: the next client's
        file gets the number that its file had.)
        """
        leases, change = self._state.leases, execution.change
        announcement = leases.foretell(change, executed.effects.foretold)
        if announcement is not None:
            return self._recalls.announce(announcement)
        also = executed.effects.read.union(_inodes(executed.reply))
        leases.changes.add(change, [Invalidation(inode=each, what=ATTR) for each in also])
        return None

    def end_change(self, execution: Execution) -> None:
        """It is executed, or given up: others may keep what they are answered.  Idempotent."""
        if inodes := execution.change.inodes:
            self._state.leases.changes.end(execution.change)
            self._recalls.changed(inodes)

    def settle(self, execution: Execution) -> None:
        """Its transaction is over: announce it, or forget what was undone."""
        if execution.committed:
            self._announce_up_to(execution)
        elif execution in self._unannounced:
            self._unannounced.remove(execution)

    def _announce_up_to(self, execution: Execution) -> None:
        """Announce what was executed before this one too: its task has not woken up yet.

        (Should its commit have failed, something was announced that did not happen: harmless.)
        """
        while execution.delivery is None:
            self._announce(self._unannounced.popleft())

    def _announce(self, execution: Execution) -> None:
        assert execution.executed is not None
        session, effects = execution.batch.session, execution.executed.effects
        leases, orphans = self._state.leases, self._state.orphans
        self.end_change(execution)
        told, names = told_by(execution.batch, execution.executed.reply)
        execution.fleeting = self._clients.hold(session, told, names)
        self._stored(_stored_chunks(execution.batch.operations))
        unused = []
        for inode in effects.orphaned:
            held = inode in effects.held and session in leases
            if orphans.add(inode, session, held=held):
                unused.append(inode)
        for inode in effects.adopted:
            orphans.adopt(inode)
        if effects.policies:
            # Nobody waits for that: what is written by the old ones meanwhile is moved later.
            news = [Invalidation(inode=each, what=Invalidated.POLICY) for each in effects.policies]
            self._state.streams.push_to_all(news)
        announcement = leases.invalidate(effects.invalidations, session, execution.change)
        unused += [inode for inode in effects.released if orphans.release(session, inode)]
        self._unused(unused)
        if execution.executed.repeated:
            # Executed by an earlier metad, which may not have told anybody.
            others = [each for each in leases.unsynced() if each != session]
            execution.delivery = self._state.streams.wait_for_reopening(others)
        else:
            execution.delivery = self._recalls.announce(announcement)
        self._end_leases(execution)

    def _end_leases(self, execution: Execution) -> None:
        """Leases that were given back together with the last change under them."""
        assert execution.executed is not None
        session, results = execution.batch.session, execution.executed.reply.results
        for op, result in zip(execution.batch.operations, results, strict=True):
            if isinstance(op, Commit) and op.give_back is not None and result.fault is None:
                self._recalls.given_back(session, op.give_back)


def told_by(batch: Batch, reply: BatchReply) -> tuple[dict[int, int], dict[int, set[bytes]]]:
    """What the client may keep of the operations that it sent: names (and of which directories only
    these), attributes, its own data."""
    told: dict[int, int] = {}
    names: dict[int, set[bytes]] = {}
    for op in batch.operations:
        for directory, name in _PLACES:
            inode = getattr(op, directory, None)
            if inode is not None:
                told[inode] = ATTR | NAMES
                names.setdefault(inode, set()).add(getattr(op, name, b""))
    for inode in _inodes(reply):
        told[inode] = told.get(inode, 0) | ATTR | DATA
    for op, result in zip(batch.operations, reply.results, strict=True):
        if isinstance(op, Create) and result.attrs:
            told[result.attrs[0].inode] |= NAMES  # of a new directory: that there are none
    return told, names


def _inodes(reply: BatchReply) -> Iterable[int]:
    return (attr.inode for result in reply.results for attr in result.attrs)


def _stored_chunks(operations: Iterable[AnyOperation]) -> list[bytes]:
    return [
        written.chunk
        for operation in operations
        if isinstance(operation, Commit)
        for written in operation.chunks
    ]
