"""One client's session with metad: its lease and its sequence numbers.

`Session.run` keeps it alive: it opens the session, renews its lease and follows its event stream
(eventstream.py).  When the lease ends before metad could be reached, the listener is told to drop
everything, so nothing stale is served; when metad ends the session, a new one is opened and the
listener learns that what was not committed is lost.  A metad of another cluster, which knows no
session of this one, ends nothing: it is waited out.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

import msgspec
import trio

from dfsmount.ports import Listener
from dfsmount.remote.eventstream import RECONNECT_PAUSE_S, EventStream
from dfsmount.remote.leaseclock import LeaseClock
from dfswire.client import Client
from dfswire.errors import DFSError, SessionLost, WrongCluster
from dfswire.health import Experience
from dfswire.metadata import (
    OpenSession,
    RenewSession,
    SessionGrant,
    SessionRequest,
)

log = logging.getLogger(__name__)

RENEW_AT_MOST_EVERY_S = 2.0
AWAKE_CHECK_EVERY_S = 1.0  # the kernel believes what it has no longer than that after a sleep
OPEN_ATTEMPTS = 3  # a session whose grant was lost holds nothing, and ends with its lease


class Session:
    """The state described above.  Its lease is counted on `clock`."""

    def __init__(
        self,
        client: Client,
        address: str,
        introduction: OpenSession,
        *,
        opened: Callable[[SessionGrant], None] = lambda grant: None,
        closed: Callable[[], None] = lambda: None,
        clock: LeaseClock | None = None,
    ) -> None:
        """`opened` is told of every session that metad grants, `closed` that it was given back."""
        self.address = address
        self.grant: SessionGrant | None = None
        self.clock = clock if clock is not None else LeaseClock()
        self._client = client
        self._introduction = introduction
        self._cluster_id = ""
        self._lease_until = -1.0
        self.losses = 0  # counts sessions that were lost, when this host knows it
        self.stream = EventStream(client, address, self.clock, self.renewed)
        self._next_sequence = 1
        self._outstanding: set[int] = set()
        self._asking = trio.Lock()
        self._opened = trio.Event()
        self._lost = trio.Event()
        self._renewed = trio.Event()
        self._trouble = trio.Event()
        self.take_experiences: Callable[[], list[Experience]] = list
        """What to tell metad of chunkds with the next renewal."""
        self._tell_opened = opened
        self._tell_closed = closed

    # For those who speak under this session

    async def open(self) -> SessionGrant:
        """Open a session now.  Raises Unavailable, ProtocolError; WrongCluster when the metad there
        is not of the cluster of the first session."""
        sent_at = self.clock.now_s()
        introduction = msgspec.structs.replace(self._introduction, cluster_id=self._cluster_id)
        grant: SessionGrant = await self._client.call(
            "session.open", self.address, introduction, attempts=OPEN_ATTEMPTS
        )
        self.grant, self._cluster_id = grant, grant.cluster_id
        self._next_sequence, self._outstanding = 1, set()
        self._lost = trio.Event()
        self._opened.set()
        self.renewed(sent_at)
        self._tell_opened(grant)
        return grant

    async def current(self) -> str:
        """The session's id; waits while there is none."""
        while self.grant is None:
            await self._opened.wait()
        return self.grant.session

    async def begin(self) -> tuple[str, int]:
        """The session and a new sequence number, to be given back with `finish`."""
        session = await self.current()
        sequence = self._next_sequence
        self._next_sequence += 1
        self._outstanding.add(sequence)
        return session, sequence

    def finish(self, session: str, sequence: int) -> None:
        """The batch was answered (or given up)."""
        if self._is_current(session):
            self._outstanding.discard(sequence)

    @property
    def acknowledged(self) -> int:
        """All sequence numbers up to this one are answered."""
        return min(self._outstanding, default=self._next_sequence) - 1

    def renewed(self, sent_at: float) -> None:
        """A request that was sent at this time of `clock` has succeeded: the lease counts from
        then."""
        if self.grant is not None:
            self._lease_until = max(self._lease_until, sent_at + self.grant.lease_s)
            if self._lease_until > self.clock.now_s():
                self._renewed.set()

    def lease_left_s(self) -> float:
        """How long cached things may still be believed; 0 while no event stream is followed."""
        return self.contact_left_s() if self.stream.is_open else 0.0

    def contact_left_s(self) -> float:
        """How long metad certainly takes this client for alive: whatever it holds is respected."""
        return max(0.0, self._lease_until - self.clock.now_s())

    async def heard(self) -> None:
        """Wait while metad may take this client for dead."""
        while not self.contact_left_s():
            self._expire()
            await self._renewed.wait()

    @property
    def host(self) -> str:
        return self._introduction.host

    async def has_ended(self, session: str) -> bool:
        """A metad said that it does not know this session: has it ended?

        Only the metad of this cluster can end it, so it is asked once more, by a request that names
        the cluster: another metad may stand at the address now, such as one that was started
        without its database.  Waits as long as that one, or nobody, answers.
        """
        is_told = False
        async with self._asking:  # one asks: there may be as many callers as programs
            while self._is_current(session):
                sent_at = self.clock.now_s()
                request = RenewSession(session=session, cluster_id=self._cluster_id)
                try:
                    await self._client.call("session.renew", self.address, request)
                except SessionLost:
                    self.lost(session)
                except WrongCluster as problem:
                    is_told = self._tell_of_stranger(problem, is_told)
                    await trio.sleep(RECONNECT_PAUSE_S)
                except DFSError as problem:
                    log.info("not known whether the session has ended: %s", problem)
                    await trio.sleep(RECONNECT_PAUSE_S)
                else:
                    self.renewed(sent_at)
                    return False
        return True

    def _is_current(self, session: str) -> bool:
        return self.grant is not None and self.grant.session == session

    def lost(self, session: str) -> None:
        """metad, of this cluster, does not know this session (any more)."""
        if self._is_current(session):
            log.warning("metad ended this client's session; opening a new one")
            self.grant = None
            self._opened = trio.Event()
            self.stream.close()
            self._lease_until = -1.0
            self._expire()
            self._lost.set()

    # For the one task that keeps it

    async def run(self, listener: Listener) -> None:
        """Keep a session for ever (until cancelled)."""
        while True:
            if self.grant is None:
                await listener.session_lost()
                self.losses += 1
                await listener.drop_all()  # after it: pages of lost data must go as well
                await self._reopen()
            assert self.grant is not None  # mypy: _reopen does not return before
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._renew, self.grant)
                nursery.start_soon(self._guard_lease, listener)
                nursery.start_soon(self._follow, self.grant, listener)
                await self._lost.wait()
                nursery.cancel_scope.cancel()

    async def close(self) -> None:
        """Give the session back, so that nobody waits for its lease to end."""
        if self.grant is not None:
            request = SessionRequest(session=self.grant.session)
            try:
                await self._client.call("session.close", self.address, request, deadline_s=2.0)
            except DFSError as problem:
                log.info("session not closed (%s); it ends with its lease", problem)
            else:
                self._tell_closed()
            self.grant = None

    async def _reopen(self) -> None:
        is_told = False
        while True:
            try:
                await self.open()
            except WrongCluster as problem:
                is_told = self._tell_of_stranger(problem, is_told)
                await trio.sleep(RECONNECT_PAUSE_S)
            except DFSError as problem:  # also: metad's disk is full, or it is another version
                log.info("no new session yet: %s", problem)
                await trio.sleep(RECONNECT_PAUSE_S)
            else:
                return

    def _tell_of_stranger(self, problem: WrongCluster, is_told: bool) -> bool:
        """A metad of another cluster answers, as of one that was started without its database."""
        if not is_told:
            log.error("%s: %s; waiting for the right one", self.address, problem)
        return True

    def renew_soon(self) -> None:
        """There is something to tell metad."""
        self._trouble.set()

    async def _renew(self, grant: SessionGrant) -> None:
        while True:
            self._trouble = trio.Event()
            pause_s = grant.renew_s * random.uniform(0.8, 1.0)
            soon_s = min(RENEW_AT_MOST_EVERY_S, pause_s)
            await trio.sleep(soon_s)
            with trio.move_on_after(pause_s - soon_s):
                await self._trouble.wait()
            sent_at = self.clock.now_s()
            request = RenewSession(session=grant.session, servers=self.take_experiences())
            try:
                await self._client.call("session.renew", self.address, request)
            except SessionLost:
                await self.has_ended(grant.session)
            except DFSError as problem:
                log.info("lease not renewed: %s", problem)
                await trio.sleep(RECONNECT_PAUSE_S)
            else:
                self.renewed(sent_at)

    async def _guard_lease(self, listener: Listener) -> None:
        """Drop everything at the moment the lease ends, whatever else hangs."""
        while True:
            slept_s = self.clock.slept_s()
            await trio.sleep(min(self.contact_left_s(), AWAKE_CHECK_EVERY_S))
            if not self.contact_left_s():
                if (slept_s := self.clock.slept_s() - slept_s) > 0:
                    log.warning("this host was suspended for %.0f s", slept_s)
                log.warning("the lease ended without an answer from metad; caches are dropped")
                self._expire()
                await listener.drop_all()
                await self._renewed.wait()

    def _expire(self) -> None:
        if self._renewed.is_set():  # else there may be some who wait for it
            self._renewed = trio.Event()

    async def _follow(self, grant: SessionGrant, listener: Listener) -> None:
        has_ended = False
        while not has_ended:
            try:
                await self.stream.follow(grant, listener)
            except SessionLost:
                self.stream.close()
                await listener.drop_all()
                has_ended = await self.has_ended(grant.session)
