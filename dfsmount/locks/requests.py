"""Requests for locks on their way to metad, and what metad has granted.

Every request has a number and is repeated under it until it is answered, so it is made once; a
blocking one is asked for again every few seconds, which keeps its place in metad's queue.  An
answer is believed only if metad was not told meanwhile what is held here: else it might come from
one that was restarted since, and its successor was not told of it.  Who gives up waiting has the
request cancelled, and holds the lock if that came too late.  hostlocks.py is the user.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import trio

from dfsmount.locks.holdings import Holdings, Key, key_of, steps_back
from dfsmount.remote.metaclient import MetaClient
from dfsmount.remote.session import Session
from dfswire.errors import DFSError, SessionLost
from dfswire.lockranges import changed, within
from dfswire.locks import (
    CancelLock,
    HeldLocks,
    Lock,
    LockAnswer,
    LockKind,
    LockOutcome,
    LockType,
    Range,
    SetLock,
)

log = logging.getLogger(__name__)

GIVE_UP_S = 1.0  # a killed process waits no longer than this for metad to cancel its request
RETRY_S = 1.0

K = TypeVar("K")


@dataclass(eq=False)
class _Asked:
    """One request.  `before` is what its owner has of its bytes without it; what it still changes
    has a stamp larger than `after`.  `given_up`: no caller waits, and its fate is open."""

    message: SetLock
    before: list[Range]
    after: int
    stamp: int = 0  # of its change that is noted already
    sent: bool = False
    given_up: bool = False

    @property
    def key(self) -> Key:
        return key_of(self.message.lock)

    @property
    def releases(self) -> bool:
        return self.message.lock.range.type == LockType.UNLOCK


class LockRequests:
    """All requests of one client.  What is given up is brought to its end in `nursery`."""

    def __init__(self, meta: MetaClient, session: Session, nursery: trio.Nursery) -> None:
        self.holdings = Holdings()
        self._meta = meta
        self._session = session
        self._nursery = nursery
        self._number = 0
        self._unanswered: dict[int, _Asked] = {}
        self._uncertain: dict[Key, list[trio.Event]] = {}  # something goes on behind its back

    async def ask(self, session: str, lock: Lock, *, wait: bool) -> LockOutcome:
        """Raises SessionLost when `session` is not the present one (any more)."""
        asked = self._begin(session, lock, wait=wait)
        try:
            return await self._answer(asked)
        except SessionLost:
            raise
        except BaseException:  # cancelled, or a soft mount waits no longer
            if await self._give_up(asked):
                return LockOutcome.GRANTED
            raise
        finally:
            if not asked.given_up:
                self._finish(asked)

    async def unlock(self, key: Key, change: Range) -> None:
        """A change that is always granted.  A lost session has released it already."""
        lock = Lock(inode=key.inode, kind=key.kind, owner=key.owner, range=change)
        if not self.holdings.of(key):
            return
        session = await self._session.current()
        if not self.holdings.of(key):  # it was lost
            return
        try:
            await self.ask(session, lock, wait=False)
        except SessionLost:
            log.debug("inode %d: unlocked by the end of the session", key.inode)

    async def certain(self, key: Key, before: trio.Event | None = None) -> None:
        """Wait until nothing that began earlier can still change what this owner holds."""
        while (events := self._uncertain.get(key)) and events[0] is not before:
            await events[0].wait()

    def go_on(self, key: Key, job: Callable[[trio.Event], Awaitable[None]]) -> None:
        """Run `job(over)` in the background; its owner's next request waits for it."""
        over = trio.Event()
        self._uncertain.setdefault(key, []).append(over)

        async def run() -> None:
            try:
                await job(over)
            finally:
                over.set()
                take_out(self._uncertain, key, over)

        self._nursery.start_soon(run)

    def held(self) -> HeldLocks:
        """What metad must know when the event stream is opened."""
        return HeldLocks(
            number=self._number,
            unanswered=list(self._unanswered),
            stamp=self.holdings.stamp,
            held=list(self.holdings.all()),
        )

    def session_lost(self) -> set[int]:
        """Nothing is held any more; returns the inodes on which something was."""
        inodes = self.holdings.inodes()
        self._number, self._unanswered, self.holdings = 0, {}, Holdings()
        return inodes

    # Inside

    def _begin(self, session: str, lock: Lock, *, wait: bool) -> _Asked:
        self._check(session)
        self._number += 1
        message = SetLock(
            session=session,
            number=self._number,
            unanswered=list(self._unanswered),
            lock=lock,
            wait=wait,
        )
        before = self.holdings.within(key_of(lock), lock.range)
        asked = _Asked(message, before, self.holdings.stamp)
        self._unanswered[self._number] = asked
        return asked

    def _finish(self, asked: _Asked) -> None:
        if self._unanswered.get(asked.message.number) is asked:
            del self._unanswered[asked.message.number]

    def _check(self, session: str) -> None:
        grant = self._session.grant
        if grant is None or grant.session != session:
            raise SessionLost(f"session {session} has ended")

    async def _answer(self, asked: _Asked) -> LockOutcome:
        """Ask until it is decided."""
        while True:
            outcome = await self._call("lock.set", asked, asked.message)
            if outcome != LockOutcome.WAITING:
                return outcome

    async def _call(self, call: str, asked: _Asked, message: SetLock | CancelLock) -> LockOutcome:
        """One answer of metad about a request, noted when it is one that can be believed."""
        while True:
            await self._meta.told()
            self._check(message.session)
            told, known, asked.sent = self._session.stream.count, self.holdings.stamp, True
            answer: LockAnswer = await self._meta.repeat(call, message)
            if told == self._session.stream.count:
                self._note(asked, answer)
                if answer.outcome == LockOutcome.WAITING:
                    asked.after = known
                return answer.outcome

    def _note(self, asked: _Asked, answer: LockAnswer) -> None:
        if answer.stamp == asked.stamp:
            return
        asked.stamp = answer.stamp
        change = asked.message.lock.range
        if answer.outcome != LockOutcome.GRANTED:  # a flock that was dropped to be converted
            change = Range(type=LockType.UNLOCK)
        settled = math.inf
        for other in self._unanswered.values():
            if other.key == asked.key and other is not asked:
                settled = min(settled, other.after)
                span = other.message.lock.range
                other.before = within(changed(other.before, change), span.start, span.end)
        self.holdings.note(asked.key, change, answer.stamp, settled)

    # Giving up

    async def _give_up(self, asked: _Asked) -> bool:
        """Nobody waits for this any more.  True when it was granted all the same."""
        if not asked.sent:
            return False
        with trio.move_on_after(GIVE_UP_S, shield=True):
            try:
                return await self._resolve(asked)
            except DFSError as problem:
                log.info("inode %d: lock not cancelled yet: %s", asked.key.inode, problem)
        asked.given_up = True
        self.go_on(asked.key, partial(self._resolve_later, asked))
        return False

    async def _resolve(self, asked: _Asked) -> bool:
        """Unlocking goes on; what was to be locked is cancelled.  True when it is done."""
        if asked.releases:
            return await self._answer(asked) == LockOutcome.GRANTED
        message = CancelLock(session=asked.message.session, number=asked.message.number)
        return await self._call("lock.cancel", asked, message) == LockOutcome.GRANTED

    async def _resolve_later(self, asked: _Asked, over: trio.Event) -> None:
        """The caller was told that nothing has happened: make that true, or finish unlocking."""
        try:
            granted = await self._resolve_in_the_end(asked)
        finally:
            self._finish(asked)
        if granted and not asked.releases:
            wanted, before = asked.message.lock.range, asked.before
            if asked.key.kind == LockKind.FLOCK:  # of another type: it was dropped to be converted
                before = [held for held in before if held.type == wanted.type]
            for step in steps_back(wanted, before):
                await self.unlock(asked.key, step)

    async def _resolve_in_the_end(self, asked: _Asked) -> bool:
        while True:
            try:
                return await self._resolve(asked)
            except SessionLost:
                return False
            except DFSError as problem:
                log.info("inode %d: lock not cancelled yet: %s", asked.key.inode, problem)
                await trio.sleep(RETRY_S)


def take_out(events: dict[K, list[trio.Event]], key: K, event: trio.Event) -> None:
    events[key].remove(event)
    if not events[key]:
        del events[key]
