"""Locks of this host's processes: asked of metad, held while the session lasts.

What an owner holds goes when a process closes any descriptor of the file (POSIX locks), or with the
last close of the open file (flocks, OFD locks); a close asks metad only when something is held.  A
conflict within one host goes through metad like any other.  The vfs is the user.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial

import trio

from dfsmount.locks.holdings import Key, key_of
from dfsmount.locks.requests import RETRY_S, LockRequests, take_out
from dfsmount.remote.metaclient import MetaClient
from dfsmount.remote.session import Session
from dfswire.errors import Deadlock, DFSError, FileError, NoLocks, WouldBlock
from dfswire.locks import (
    HeldLocks,
    Lock,
    LockKind,
    LockOutcome,
    LockType,
    Range,
)

log = logging.getLogger(__name__)

_REFUSED: dict[LockOutcome, type[FileError]] = {
    LockOutcome.CONFLICT: WouldBlock,
    LockOutcome.DEADLOCK: Deadlock,
    LockOutcome.NO_LOCKS: NoLocks,
    LockOutcome.CANCELLED: WouldBlock,
}


class Locks:
    """All locks of one client."""

    def __init__(self, meta: MetaClient, session: Session, nursery: trio.Nursery) -> None:
        self._meta = meta
        self._session = session
        self._requests = LockRequests(meta, session, nursery)
        self._closings: dict[int, list[trio.Event]] = {}  # inode -> releases under way
        self._handles: dict[Key, set[int]] = {}  # through which handles an owner has locked
        self._keys: dict[int, set[Key]] = {}  # the same by handle

    async def get(self, lock: Lock) -> Range | None:
        """F_GETLK: what is in the way, if anything.

        A pid of another host means nothing here: 0, as the kernel does for a process that it can't
        see.
        """
        reply = await self._meta.get_lock(lock)
        if reply.range is None or reply.host == self._session.host:
            return reply.range
        return Range(type=reply.range.type, start=reply.range.start, end=reply.range.end)

    async def set(self, session: str, handle: int, lock: Lock, *, wait: bool) -> None:
        """Lock or unlock.  Raises WouldBlock, Deadlock, NoLocks; SessionLost when `session` is not
        the present one (any more), and then nothing is held."""
        key = key_of(lock)
        await self._quiet(key)
        if lock.range.type != LockType.UNLOCK:
            self._handles.setdefault(key, set()).add(handle)
            self._keys.setdefault(handle, set()).add(key)
        elif not self._requests.holdings.within(key, lock.range):
            return
        outcome = await self._requests.ask(session, lock, wait=wait)
        if outcome != LockOutcome.GRANTED:
            raise _REFUSED[outcome](f"inode {lock.inode}: {outcome.name}")

    async def release_owner(self, inode: int, owner: int) -> None:
        """close(2) of one descriptor: all POSIX locks of this owner on the inode go."""
        key = Key(inode, LockKind.POSIX, owner)
        for handle in self._handles.pop(key, ()):
            self._keys[handle].discard(key)
        await self._release(key)

    @contextmanager
    def closing(self, handle: int) -> Iterator[list[Key]]:
        """Around the last close of an open file: the owners whose locks go with it.

        Those are its flock, its OFD locks (whose owner is the open file as well, and of which the
        kernel says nothing when it closes it), and nothing else, as every process that had locked
        through it has closed a descriptor before.  The kernel does not wait for this, so whoever
        wants a lock on the inode next waits until it is over.
        """
        keys = list(self._keys.pop(handle, ()))
        for key in keys:
            self._handles[key].discard(handle)
            if not self._handles[key]:
                del self._handles[key]
        keys = [key for key in keys if self._requests.holdings.of(key)]
        over = trio.Event()
        for key in keys:
            self._closings.setdefault(key.inode, []).append(over)
        try:
            yield keys
        finally:
            over.set()
            for key in keys:
                take_out(self._closings, key.inode, over)

    async def release(self, keys: list[Key]) -> None:
        """The end of `closing`."""
        for key in keys:
            await self._release(key)

    # For the session

    def held(self) -> HeldLocks:
        """What metad must know when the event stream is opened."""
        return self._requests.held()

    def session_lost(self) -> Collection[int]:
        """Nothing is held any more; returns the inodes on which something was."""
        return self._requests.session_lost()

    # Inside

    async def _quiet(self, key: Key) -> None:
        """Wait for closes under way on the inode, and for what this owner has begun."""
        await self._requests.certain(key)
        while events := self._closings.get(key.inode):
            await events[0].wait()
            await self._requests.certain(key)

    async def _release(self, key: Key) -> None:
        """Everything of this owner; without asking metad where nothing is held."""
        try:
            await self._requests.certain(key)
            await self._requests.unlock(key, Range(type=LockType.UNLOCK))
        except BaseException:  # the process is killed while it closes: its locks must not stay
            self._requests.go_on(key, partial(self._release_later, key))
            raise

    async def _release_later(self, key: Key, over: trio.Event) -> None:
        await self._requests.certain(key, over)
        while self._requests.holdings.of(key):
            try:
                await self._requests.unlock(key, Range(type=LockType.UNLOCK))
            except DFSError as problem:
                log.info("inode %d: not unlocked yet: %s", key.inode, problem)
                await trio.sleep(RETRY_S)
