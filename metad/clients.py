"""The life of client sessions: opened, kept alive, told things, ended.

A session is a row in the database, an entry in leases.py and a stream in events.py; this module
keeps the three together.  The order matters: a session ends in memory first (nothing of it is
accepted, nobody waits for it), then its row goes.  After a restart the rows come back as sessions
that have a fence time to reconnect and count as having everything cached and open until they do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import trio

from dfswire.errors import DFSError
from dfswire.messages import Empty
from dfswire.metadata import AckEvents, FollowEvents, OpenSession, SessionGrant, SessionRequest
from metad import chunkmap, sessions
from metad.events import Follower
from metad.sessions import StoredSession
from metad.state import State

log = logging.getLogger(__name__)

SESSION_ID_BYTES = 16


class Clients:
    """All sessions.  `unused` is told of unlinked inodes that nobody has open any more."""

    def __init__(self, state: State, unused: Callable[[Iterable[int]], None]) -> None:
        self._state = state
        self._unused = unused
        self.on_end: list[Callable[[str], None]] = []
        self._known: dict[str, StoredSession] = {}
        self._rows_to_remove: set[str] = set()

    def restore(self) -> None:
        """At start: sessions and orphans of the previous metad."""
        now = self._state.clock()
        for stored in sessions.list_sessions(self._state.db):
            self._add(stored, now, synced=False)
        orphans = chunkmap.orphans(self._state.db)
        self._unused(inode for inode in orphans if self._state.leases.load_orphan(inode))

    def _add(self, stored: StoredSession, now: float, *, synced: bool) -> None:
        self._known[stored.session] = stored
        self._state.leases.open(stored.session, now, synced=synced)
        self._state.streams.open(stored.session)

    # for the other handlers

    def check(self, session: str) -> StoredSession:
        """The session that asks.  Raises SessionLost."""
        self._state.leases.check(session, self._state.clock())
        return self._known[session]

    def renew(self, session: str) -> None:
        """A request arrived that keeps the lease alive.  Raises SessionLost."""
        self._state.leases.renew(session, self._state.clock())

    def hold(self, session: str, inodes: Iterable[int]) -> None:
        """The session is about to be told of these inodes (no await before it is)."""
        if session in self._state.leases and self._state.leases.hold(session, inodes):
            self._state.streams.drop_all(session)

    def all(self) -> list[StoredSession]:
        """Every session that has not ended."""
        return list(self._known.values())

    # calls

    async def open(self, request: OpenSession) -> SessionGrant:
        """A client starts; those that it replaces end first."""
        state, config = self._state, self._state.config
        for dead in request.replaces:
            await self.end(dead)
        stored = StoredSession(
            session=state.rng.randbytes(SESSION_ID_BYTES).hex(),
            host=request.host,
            mount_point=request.mount_point,
            pid=request.pid,
            software=request.software,
            opened_ns=state.now_ns(),
        )
        # Not cancellable: a row without its session in memory would stay until the next start.
        with trio.CancelScope(shield=True):
            await state.db.write(lambda: sessions.open_session(state.db, stored))
        self._add(stored, state.clock(), synced=True)
        return SessionGrant(
            session=stored.session,
            lease_s=config.lease_s,
            renew_s=config.renew_s,
            cluster_id=state.cluster_id,
            chunk_size_bytes=state.policy.chunk_size_bytes,
            inline_max_bytes=config.inline_max_bytes,
            replicas=state.policy.replicas,
        )

    async def renew_call(self, request: SessionRequest) -> Empty:
        self.renew(request.session)
        return Empty()

    async def close(self, request: SessionRequest) -> Empty:
        """Closing twice is harmless."""
        await self.end(request.session)
        return Empty()

    async def follow(self, request: FollowEvents) -> Follower:
        """(Re)open the event stream: an async iterator of `Event`."""
        self.renew(request.session)
        self._unused(self._state.leases.connect(request.session, request.open_inodes))
        return self._state.streams.follow(request.session)

    async def acknowledge(self, request: AckEvents) -> Empty:
        self.renew(request.session)
        self._state.streams.acknowledge(request.session, request.number)
        return Empty()

    # ends

    async def end(self, session: str) -> None:
        """Forget a session, in memory at once, then in the database.  Idempotent."""
        if self._known.pop(session, None) is None:
            return
        self._unused(self._state.leases.end(session))
        self._state.streams.end(session)
        for tell in self.on_end:
            tell(session)
        self._rows_to_remove.add(session)
        await self._remove_rows()

    async def _remove_rows(self) -> None:
        state = self._state
        for session in sorted(self._rows_to_remove):
            now_ns = state.now_ns()

            def remove(session: str = session, now_ns: int = now_ns) -> None:
                sessions.close_session(state.db, session, now_ns)

            await state.db.write(remove)
            self._rows_to_remove.discard(session)

    async def run_once(self) -> None:
        """End the sessions whose fence time has passed."""
        for session in self._state.leases.expired(self._state.clock()):
            known = self._known[session]
            log.info("session %s of %s is fenced: not heard for long", session, known.host)
            await self.end(session)
        await self._remove_rows()

    async def run_forever(self) -> None:
        while True:
            try:
                await self.run_once()
            except DFSError as problem:  # the database can't be written now; tried again
                log.warning("rows of ended sessions can't be removed: %s", problem)
            await trio.sleep(self._state.config.maintenance_s)
