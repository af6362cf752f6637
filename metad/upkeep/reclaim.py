"""Reclaim: what nobody uses any more goes away.

Unlinked inodes that no client has open are purged soon after; grants that were never committed
expire; chunks that no file names are deleted on their servers after a grace period, and forgotten
when every server confirmed.  `plan_deletes` is pure.  Delete orders are queued only for servers
that are up, and only for chunks that metad knows to be dead; a dead chunk never lives again.

They stay for `window_s`, so that the metadata can be restored to any moment of that time, with the
bytes that it names.  Of a disk that is nearly full they go after `grace_s`, and an event says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import trio

from dfswire.errors import DFSError
from dfswire.orders import Order
from metad.copies import replicas
from metad.hosts.servers import Servers
from metad.names import chunkmap
from metad.recovery.fence import reclaim_held
from metad.storage.database import Database

log = logging.getLogger(__name__)

PURGES_PER_COMMIT_MAX = 100  # a purge may free thousands of extents; others want to commit too
CHUNKS_PER_PASS_MAX = 2000
EARLY_PER_PASS_MAX = 100  # the room is seen with the next heartbeats only
GRANTS_PER_PASS_MAX = 2000


@dataclass(frozen=True)
class ReclaimLimits:
    """See MetadConfig."""

    grace_s: float = 3600.0
    gone_after_s: float = 3600.0
    window_s: float = 0.0
    early_share: float = 0.0  # of a disk: with less free the window does not count

    @property
    def kept_s(self) -> float:
        """How long a dead chunk stays where there is room."""
        return max(self.grace_s, self.window_s)


@dataclass(frozen=True)
class Deletes:
    """`orders`: (chunk, disk) to delete; `forget`: chunks of which nothing is left to wait for."""

    orders: list[tuple[bytes, str]]
    forget: list[bytes]


def plan_deletes(
    dead: Iterable[tuple[bytes, list[str]]], servers: Servers, now: float, limits: ReclaimLimits
) -> Deletes:
    """What to do about dead chunks and the disks that may still have them.

    Disks that failed, and those of servers that are down for long, are not waited for: should they
    return, their chunks are unknown to metad, set aside there, and deleted later.
    """
    plan = Deletes([], [])
    for chunk, disks in dead:
        waiting = [disk for disk in disks if not _is_gone(disk, servers, now, limits)]
        if not waiting:
            plan.forget.append(chunk)
        plan.orders.extend(
            (chunk, disk) for disk in waiting if servers.disk_state(disk, now) == "up"
        )
    return plan


def _is_gone(disk: str, servers: Servers, now: float, limits: ReclaimLimits) -> bool:
    server = servers.server_of(disk)
    if server is None or servers.down_for_s(server, now) >= limits.gone_after_s:
        return True
    return disk in server.disks and server.disks[disk].failed


def short_disks(servers: Servers, now: float, share: float) -> set[str]:
    """Disks that are up and have less than this share free."""
    return {
        figures.disk
        for server in servers
        for figures in server.disks.values()
        if figures.free_bytes < figures.total_bytes * share
        and servers.disk_state(figures.disk, now) == "up"
    }


class Reclaimer:
    """Works through what is left over, at intervals and when woken."""

    def __init__(
        self,
        db: Database,
        servers: Servers,
        limits: ReclaimLimits,
        *,
        tell: Callable[[str], None] = log.warning,
        interval_s: float = 1.0,
        clock: Callable[[], float] = trio.current_time,
        now_ns: Callable[[], int],
    ) -> None:
        self._db = db
        self._servers = servers
        self._limits = limits
        self._tell = tell
        self._is_early = False  # as far as was told
        self._interval_s = interval_s
        self._clock = clock
        self._now_ns = now_ns
        self._wanted = trio.Event()
        self._unused: dict[int, None] = {}  # orphans to purge, in order

    def purge_soon(self, inodes: Iterable[int]) -> None:
        """These unlinked inodes are open nowhere."""
        self._unused.update(dict.fromkeys(inodes))
        if self._unused:
            self._wanted.set()

    async def run_forever(self) -> None:
        while True:
            self._wanted = trio.Event()
            try:
                await self.run_once()
            except DFSError as problem:  # the database can't be written now; nothing is forgotten
                log.warning("nothing can be reclaimed: %s", problem)
            with trio.move_on_after(self._interval_s):
                await self._wanted.wait()

    async def run_once(self) -> None:
        """Purge what may go, expire grants, order deletes, forget what is deleted."""
        while self._unused:
            await self._purge_some()
        now_ns = self._now_ns()
        await self._expire_grants(now_ns)
        await self._delete_dead(now_ns)

    def book(self, order: Order) -> None:
        """In a mutation: the replica of a dead chunk was deleted."""
        replicas.remove_replica(self._db, order.chunk, order.disk)
        if not replicas.replicas_of(self._db, order.chunk):
            replicas.forget_chunk(self._db, order.chunk)

    async def _purge_some(self) -> None:
        inodes = list(self._unused)[:PURGES_PER_COMMIT_MAX]
        now_ns = self._now_ns()

        def purge() -> None:
            for inode in inodes:
                if self._db.read_one("SELECT 1 FROM orphan WHERE inode = ?", (inode,)):
                    chunkmap.purge_inode(self._db, inode, now_ns)

        await self._db.write(purge)
        for inode in inodes:
            self._unused.pop(inode, None)

    async def _expire_grants(self, now_ns: int) -> None:
        if self._db.read_one("SELECT 1 FROM chunk WHERE expires_ns <= ? LIMIT 1", (now_ns,)):
            await self._db.write(
                lambda: replicas.expire_grants(self._db, now_ns, GRANTS_PER_PASS_MAX)
            )

    async def _delete_dead(self, now_ns: int) -> None:
        if reclaim_held(self._db):
            return
        limits = self._limits
        before_ns = now_ns - int(limits.kept_s * 1e9)
        dead = replicas.dead_chunks(self._db, before_ns, CHUNKS_PER_PASS_MAX)
        if limits.grace_s < limits.kept_s:
            dead += self._dead_early(now_ns)
        plan = plan_deletes(dead, self._servers, self._clock(), self._limits)
        for chunk, disk in plan.orders:
            self._servers.orders.add("delete", chunk, disk)
        if plan.forget:

            def forget() -> None:
                for chunk in plan.forget:
                    replicas.forget_chunk(self._db, chunk)

            await self._db.write(forget)

    def _dead_early(self, now_ns: int) -> list[tuple[bytes, list[str]]]:
        """What goes before its time, where room is short: the oldest of it first."""
        limits = self._limits
        short = short_disks(self._servers, self._clock(), limits.early_share)
        before_ns = now_ns - int(limits.grace_s * 1e9)
        dead = replicas.dead_chunks(self._db, before_ns, EARLY_PER_PASS_MAX, short) if short else []
        if dead and not self._is_early:
            self._tell(
                f"{len(short)} disks have less than {limits.early_share:.0%} free: what was deleted"
                f" more than {limits.grace_s:g} s ago goes now, not {limits.kept_s:g} s after; a "
                "restore to an earlier moment would lack it"
            )
        self._is_early = bool(dead)
        return dead
