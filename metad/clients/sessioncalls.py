"""The life of client sessions: opened, kept alive, told things, ended.

A session is a row in the database, an entry in metad/leases and a stream in events.py; this module
keeps the three together.  The order matters: a session ends in memory first (nothing of it is
accepted, nobody waits for it), then its row goes.  After a restart the rows come back as sessions
that have a fence time to reconnect and count as having everything cached and open until they do.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec
import trio

from dfswire.daemon import CALLER
from dfswire.errors import DFSError, Forbidden, Stale, WrongCluster
from dfswire.identity import Identity
from dfswire.messages import Answer, Empty
from dfswire.metadata import (
    AckEvents,
    FollowEvents,
    OpenSession,
    Renewed,
    RenewSession,
    SessionGrant,
    SessionRequest,
)
from metad.clients.recalls import Recalls
from metad.leases.changes import ALL_NAMES, NOTHING, Fleeting, Names
from metad.names import chunkmap
from metad.sessions import rows as sessions
from metad.sessions.events import Follower
from metad.sessions.rows import StoredSession
from metad.state import State

log = logging.getLogger(__name__)

SESSION_ID_BYTES = 16

A = TypeVar("A", bound=Answer)


def told_fleetingly(answer: A, fleeting: Fleeting) -> A:
    """The answer, saying what of it must not be kept."""
    if not fleeting:
        return answer
    return msgspec.structs.replace(
        answer, fleeting=fleeting.attributes, fleeting_names=fleeting.names
    )


class Clients:
    """All sessions.  `unused` is told of unlinked inodes that nobody has open any more."""

    def __init__(
        self, state: State, recalls: Recalls, unused: Callable[[Iterable[int]], None]
    ) -> None:
        self._state = state
        self._recalls = recalls
        self._unused = unused
        self.on_end: list[Callable[[str], None]] = []
        self.on_gone: list[Callable[[str], None]] = []  # nothing of it can be committed any more
        self.on_follow: list[Callable[[FollowEvents], None]] = []
        self._known: dict[str, StoredSession] = {}
        self._rows_to_remove: set[str] = set()
        self._holders: dict[str, Identity] = {}  # whose certificate they are used with

    def restore(self) -> None:
        """At start: sessions and orphans of the previous metad."""
        now = self._state.clock()
        for stored in sessions.list_sessions(self._state.db):
            self._add(stored, now, synced=False)
        orphans = chunkmap.orphans(self._state.db)
        self._unused(inode for inode in orphans if self._state.orphans.load(inode))

    def _add(self, stored: StoredSession, now: float, *, synced: bool) -> None:
        self._known[stored.session] = stored
        self._state.leases.open(stored.session, now, synced=synced)
        self._state.streams.open(stored.session)

    # for the other handlers

    def check(self, session: str) -> StoredSession:
        """The session that asks.  Raises SessionLost, Forbidden."""
        self._state.leases.check(session, self._state.clock())
        self._check_holder(session)
        return self._known[session]

    def renew(self, session: str) -> None:
        """A request arrived that keeps the lease alive.  Raises SessionLost, Forbidden."""
        self._check_holder(session)
        self._state.leases.renew(session, self._state.clock())

    def _check_holder(self, session: str) -> None:
        """Under TLS a session is used with one certificate: the one that it is first used with,
        after a restart of metad too.  Raises Forbidden."""
        caller = CALLER.get()
        if caller is None or session not in self._known:
            return
        if self._holders.setdefault(session, caller) != caller:
            raise Forbidden(f"this session is not one of {caller}")

    def hold(self, session: str, told: Mapping[int, int], names: Names = ALL_NAMES) -> Fleeting:
        """The session is about to be told of these parts of inodes (no await before it is).

        Returns what of that it must not keep; `told_fleetingly` puts it into the answer.
        """
        leases = self._state.leases
        if session not in leases:
            return NOTHING
        fleeting = leases.changes.fleeting(session, told, names)
        if announcement := leases.hold(session, told, fleeting):
            self._recalls.drop_all(session, announcement)
        return fleeting

    def find(self, session: str) -> StoredSession | None:
        """One that has not ended."""
        return self._known.get(session)

    def all(self) -> list[StoredSession]:
        """Every session that has not ended."""
        return list(self._known.values())

    def telling(self, handler: Callable[[Any], Awaitable[A]]) -> Callable[[Any], Awaitable[A]]:
        """The handler of a session's call; its answer says which news are still on their way.

        What others have executed, but were not answered yet, is in it already.
        """
        unheard = self._state.streams.unheard

        async def answer(request: Any) -> A:
            try:
                reply = await handler(request)
            except DFSError as problem:
                problem.told = unheard(request.session)
                raise
            told = unheard(request.session)
            return reply if told is None else msgspec.structs.replace(reply, told=told)

        return answer

    # calls

    async def open(self, request: OpenSession) -> SessionGrant:
        """A client starts; those that it replaces end first.  Raises WrongCluster."""
        state, config = self._state, self._state.config
        self._check_cluster(request.cluster_id)
        for dead in request.replaces:
            self._check_holder(dead)
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
        self._check_holder(stored.session)
        return SessionGrant(
            session=stored.session,
            instance=state.instance,
            lease_s=config.lease_s,
            renew_s=config.renew_s,
            cluster_id=state.cluster_id,
            chunk_size_bytes=state.policy.chunk_size_bytes,
            inline_max_bytes=config.inline_max_bytes,
            replicas=state.policy.replicas,
        )

    def _check_cluster(self, cluster_id: str) -> None:
        """Raises WrongCluster for a client that names another one."""
        ours = self._state.cluster_id
        if cluster_id not in ("", ours):
            raise WrongCluster(f"this metad is of cluster {ours}, not of {cluster_id}")

    async def renew_call(self, request: RenewSession) -> Renewed:
        """Raises SessionLost, WrongCluster."""
        self._check_cluster(request.cluster_id)
        self.renew(request.session)
        state = self._state
        state.servers.grayness.report(f"client {request.session}", request.servers, state.clock())
        return Renewed(instance=state.instance)

    async def close(self, request: SessionRequest) -> Empty:
        """Closing twice is harmless.  Raises Forbidden."""
        self._check_holder(request.session)
        await self.end(request.session)
        return Empty()

    async def follow(self, request: FollowEvents) -> Follower:
        """(Re)open the event stream: an async iterator of `Event`.  Raises SessionLost, Stale."""
        session, state = request.session, self._state
        self.renew(session)
        if request.instance != state.instance:
            raise Stale("metad was started since; ask it for the name of this start")
        state.streams.check_new(session, request.number)
        ask = state.leases.connect(session, request.leases)
        self._unused(state.orphans.reopened(session, request.open_inodes))
        follower = state.streams.follow(session, request.number, confirms=ask.announcement is None)
        for tell in self.on_follow:
            tell(request)
        self._recalls.send(ask)
        self._recalls.session_changed(session)
        return follower

    async def acknowledge(self, request: AckEvents) -> Empty:
        self.renew(request.session)
        self._state.streams.acknowledge(request.session, request.number)
        return Empty()

    # ends

    async def end(self, session: str) -> None:
        """Forget a session, in memory at once, then in the database.  Idempotent."""
        if self._known.pop(session, None) is not None:
            self._end_in_memory(session)
            await self._remove_rows()

    def _end_in_memory(self, session: str) -> None:
        self._holders.pop(session, None)
        self._state.leases.end(session)
        self._unused(self._state.orphans.end(session))
        self._state.streams.end(session)
        self._recalls.session_changed(session)
        for tell in self.on_end:
            tell(session)
        self._rows_to_remove.add(session)

    async def _remove_rows(self) -> None:
        state = self._state
        for session in sorted(self._rows_to_remove):
            now_ns = state.now_ns()

            def remove(session: str = session, now_ns: int = now_ns) -> None:
                sessions.close_session(state.db, session, now_ns)

            await state.db.write(remove)
            self._rows_to_remove.discard(session)
            for tell in self.on_gone:
                tell(session)

    async def run_once(self) -> None:
        """End the sessions whose fence time has passed: all at once, whatever the database does."""
        for session in self._state.leases.expired(self._state.clock()):
            known = self._known.pop(session)
            sentence = f"{known.mount_point} on {known.host} was not heard for too long"
            self._state.event_log.add("session.fenced", session, sentence)
            self._end_in_memory(session)
        await self._remove_rows()

    async def run_forever(self) -> None:
        """Sessions end at their very fence time: others may wait for what they hold."""
        leases, clock = self._state.leases, self._state.clock
        while True:
            pause_s = self._state.config.maintenance_s
            try:
                await self.run_once()
            except DFSError as problem:  # the database can't be written now; tried again
                log.warning("rows of ended sessions can't be removed: %s", problem)
            else:
                now = clock()
                until_next_s = leases.next_expiry(now) - now  # negative when rows took long
                pause_s = max(0.0, min(pause_s, until_next_s))
            await trio.sleep(pause_s)
