"""Group commit: mutations that wait at the same time share one transaction and its fsync.

Used by database.Database only.  Works run on the loop's thread, in the order they came, each in a
savepoint; then one thread runs COMMIT while the next works gather.  Nobody hears of a success
before the commit that contains it has returned and its journal entry is safe with the followers
(followers.py), and everybody in a group whose commit failed hears of that.  While a group waits for
the followers, later ones are executed and committed.  One thread wake-up and one wake-up of the
loop per group, whatever its size.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import outcome
import trio

from dfswire.errors import DFSError, Unavailable
from dfswire.journal import Entry

if TYPE_CHECKING:
    from metad.storage.database import Database

log = logging.getLogger(__name__)

T = TypeVar("T")

GROUP_MAX_WORKS = 256  # bounds how long the loop is busy, and what one failed commit takes along


@dataclass(eq=False)
class _Waiting:
    """A caller of write(): its work, and later the outcome."""

    work: Callable[[], Any]
    done: trio.Event = field(default_factory=trio.Event)
    result: outcome.Value[Any] | outcome.Error | None = None
    number: int = 0  # of the journal entry that it must not be answered before


_Group = list[_Waiting]


class GroupCommitter:
    """See the module's text.  The thread exists from the first write of a database on disk."""

    def __init__(self, database: Database, *, inline: bool) -> None:
        self.commits = 0
        self.works = 0  # in those commits
        self.commit_seconds = 0.0  # spent in them
        self._database = database
        self._inline = inline
        self._waiting: deque[_Waiting] = deque()
        self._busy = False  # a group runs, commits, or is about to
        self._closed = False
        self._offered: Entry | None = None  # to the followers, and not yet committed
        self._orders: queue.SimpleQueue[tuple[trio.lowlevel.TrioToken, _Group] | None]
        self._orders = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def write(self, work: Callable[[], T]) -> T:
        """See Database.write."""
        if self._closed:
            raise Unavailable("the database is closed")
        self._database.failure.check()
        # In the context of who wants it (who calls, for which request), not of whose group it is.
        waiting = _Waiting(partial(copy_context().run, work))
        self._waiting.append(waiting)
        if self._inline:
            self._run_inline()
        elif not self._busy:
            self._busy = True
            # Whoever else is about to run in this pass of the loop joins the group.
            await trio.lowlevel.cancel_shielded_checkpoint()
            self._next_group()
        await waiting.done.wait()
        if self._database.followers is not None:
            await self._database.followers.until_safe(waiting.number)
        assert waiting.result is not None
        result: T = waiting.result.unwrap()
        return result

    def close(self) -> None:
        """Commit everything that was accepted, then stop the thread."""
        self._closed = True
        if self._thread is not None:
            self._orders.put(None)
            self._thread.join()
            self._thread = None
        while self._waiting:
            self._run_inline()

    def _run_inline(self) -> None:
        group = self._take()
        problem = self._ended() or self._execute(group) or self._commit()
        self._resolve(group, problem)

    # -- on the loop's thread -------------------------------------------------------------------

    def _next_group(self) -> None:
        group = self._take()
        if not group:  # close() was faster
            self._busy = False
            return
        if problem := self._ended() or self._execute(group):
            self._committed(group, problem)
            return
        if self._thread is None:
            # A daemon thread: a metad that crashes must end, not wait for orders that never come.
            self._thread = threading.Thread(
                target=self._commit_forever, name="metad-commit", daemon=True
            )
            self._thread.start()
        self._orders.put((trio.lowlevel.current_trio_token(), group))

    def _ended(self) -> DFSError | None:
        try:
            self._database.failure.check()
        except Unavailable as problem:
            return problem
        return None

    def _take(self) -> _Group:
        count = min(len(self._waiting), GROUP_MAX_WORKS)
        self.works += count
        return [self._waiting.popleft() for _ in range(count)]

    def _execute(self, group: _Group) -> DFSError | None:
        """Run the works in a transaction that stays open; None when it may be committed."""
        database = self._database
        try:
            database.begin()
            for waiting in group:
                waiting.result = outcome.capture(self._run_alone, waiting.work)
                if not database.in_transaction or _is_out_of_memory(waiting.result):
                    waiting.result.unwrap()
                waiting.result = self._explained(waiting.result)
                if problem := self._ended():  # nothing may be committed any more
                    self._roll_back()
                    return problem
            self._offer(database.seal())
        except (sqlite3.Error, MemoryError) as error:
            return self._undone(error)
        finally:
            database.end()
        return None

    def _explained(
        self, result: outcome.Value[Any] | outcome.Error
    ) -> outcome.Value[Any] | outcome.Error:
        """What SQLite had against one work, in the words of our errors."""
        if isinstance(result, outcome.Error) and isinstance(result.error, sqlite3.Error):
            return outcome.Error(self._database.failure.translated(result.error))
        return result

    def _undone(self, problem: sqlite3.Error | MemoryError) -> DFSError:
        failure = self._database.failure.translated(problem)
        self._roll_back()
        return failure

    def _roll_back(self) -> None:
        try:
            self._database.roll_back()
        except sqlite3.Error as problem:  # a broken disk; nobody will see what is left of it
            self._database.failure.translated(problem)
        except MemoryError as problem:
            self._database.failure.unsure(problem)

    def _offer(self, entry: Entry | None) -> None:
        if entry is not None and self._database.followers is not None:
            self._database.followers.offer(entry)
            self._offered = entry

    def _run_alone(self, work: Callable[[], T]) -> T:
        with self._database.savepoint():
            return work()

    def _committed(self, group: _Group, problem: DFSError | None) -> None:
        self._resolve(group, problem)
        if self._waiting:
            # Not at once, so that those who were just answered can join with what they do next.
            trio.lowlevel.current_trio_token().run_sync_soon(self._next_group)
        else:
            self._busy = False

    def _resolve(self, group: _Group, problem: DFSError | None) -> None:
        offered, self._offered = self._offered, None
        # After a failure it may be on disk or not: the next metad finds out, and tells followers.
        ends = self._database.failure.problem is not None
        if problem and not ends and offered is not None and self._database.followers is not None:
            self._database.followers.withdraw(offered, self._database.term)
        for waiting in group:
            waiting.number = 0 if problem else self._database.sealed
            if problem is not None:
                waiting.result = outcome.Error(problem)
            waiting.done.set()

    # -- on the thread (or inline) --------------------------------------------------------------

    def _commit(self) -> DFSError | None:
        self.commits += 1
        began_s = time.perf_counter()
        try:
            self._database.commit()
        except sqlite3.Error as problem:
            return self._undone(problem)
        except MemoryError as problem:
            return self._database.failure.unsure(problem)
        finally:
            self.commit_seconds += time.perf_counter() - began_s
        return None

    def _commit_forever(self) -> None:
        while order := self._orders.get():
            token, group = order
            problem = self._commit()
            try:
                token.run_sync_soon(self._committed, group, problem)
            except trio.RunFinishedError:
                log.debug("the loop ended before %d callers heard of their commit", len(group))


def _is_out_of_memory(result: outcome.Value[Any] | outcome.Error) -> bool:
    """Then nobody knows what of the work is undone, as that takes memory too."""
    return isinstance(result, outcome.Error) and isinstance(result.error, MemoryError)
