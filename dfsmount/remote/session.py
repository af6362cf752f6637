"""One client's session with metad: its lease, its sequence numbers, its stream of invalidations.

`Session.run` keeps it alive: it opens the session, follows the event stream, hands each event to
the `Listener` (which makes this host forget what is no longer true) and only then acknowledges it,
because metad lets the other client's change complete when it has that acknowledgement.  When the
lease ends before metad could be reached, the listener is told to drop everything, so nothing stale
is served; when metad ends the session, a new one is opened and the listener learns that what was
not committed is lost.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Callable

import trio

from dfsmount.ports import Listener
from dfswire.client import Client
from dfswire.errors import DFSError, SessionLost, Unavailable
from dfswire.health import Experience
from dfswire.messages import Event
from dfswire.metadata import (
    AckEvents,
    FollowEvents,
    OpenSession,
    RenewSession,
    SessionGrant,
    SessionRequest,
)

log = logging.getLogger(__name__)

RECONNECT_PAUSE_S = 0.2
RENEW_AT_MOST_EVERY_S = 2.0
OPEN_ATTEMPTS = 3  # a session whose grant was lost holds nothing, and ends with its lease


class Session:
    """The state described above.  Its lease is counted on trio's clock."""

    def __init__(
        self,
        client: Client,
        address: str,
        introduction: OpenSession,
        *,
        opened: Callable[[SessionGrant], None] = lambda grant: None,
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        """`opened` is told of every session that metad grants, `closed` that it was given back."""
        self.address = address
        self.grant: SessionGrant | None = None
        self._client = client
        self._introduction = introduction
        self._lease_until = -1.0
        self.losses = 0  # counts sessions that were lost, when this host knows it
        self._following = False
        self._followed = trio.Event()  # the stream is open
        self.streams = 0  # how often metad was told what is open and locked
        self._next_sequence = 1
        self._outstanding: set[int] = set()
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
        """Open a session now.  Raises Unavailable, ProtocolError."""
        sent_at = trio.current_time()
        grant: SessionGrant = await self._client.call(
            "session.open",
            self.address,
            self._introduction,
            attempts=OPEN_ATTEMPTS,
        )
        self.grant = grant
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
        if self.grant is not None and self.grant.session == session:
            self._outstanding.discard(sequence)

    @property
    def acknowledged(self) -> int:
        """All sequence numbers up to this one are answered."""
        return min(self._outstanding, default=self._next_sequence) - 1

    def renewed(self, sent_at: float) -> None:
        """A request that was sent at this time has succeeded: the lease counts from then."""
        if self.grant is not None:
            self._lease_until = max(self._lease_until, sent_at + self.grant.lease_s)
            if self._lease_until > trio.current_time():
                self._renewed.set()

    def lease_left_s(self) -> float:
        """How long cached things may still be believed; 0 while no event stream is followed."""
        return max(0.0, self._lease_until - trio.current_time()) if self._following else 0.0

    def contact_left_s(self) -> float:
        """How long metad certainly takes this client for alive: whatever it holds is respected."""
        return max(0.0, self._lease_until - trio.current_time())

    async def heard(self) -> None:
        """Wait while metad may take this client for dead."""
        while not self.contact_left_s():
            self._expire()
            await self._renewed.wait()

    @property
    def host(self) -> str:
        return self._introduction.host

    @property
    def is_followed(self) -> bool:
        """Is the event stream open, so that this client is told of changes?"""
        return self._following

    async def followed(self) -> None:
        """Wait until the event stream is open."""
        while not self._following:
            await self._followed.wait()

    def lost(self, session: str) -> None:
        """metad said that it does not know this session (any more)."""
        if self.grant is not None and self.grant.session == session:
            log.warning("metad ended this client's session; opening a new one")
            self.grant = None
            self._opened = trio.Event()
            self._unfollow()
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
        while True:
            try:
                await self.open()
            except DFSError as problem:  # also: metad's disk is full, or it is another version
                log.info("no new session yet: %s", problem)
                await trio.sleep(RECONNECT_PAUSE_S)
            else:
                return

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
            sent_at = trio.current_time()
            request = RenewSession(session=grant.session, servers=self.take_experiences())
            try:
                await self._client.call("session.renew", self.address, request)
            except SessionLost:
                self.lost(grant.session)
            except DFSError as problem:
                log.info("lease not renewed: %s", problem)
                await trio.sleep(RECONNECT_PAUSE_S)
            else:
                self.renewed(sent_at)

    async def _guard_lease(self, listener: Listener) -> None:
        """Drop everything at the moment the lease ends, whatever else hangs."""
        while True:
            await trio.sleep_until(self._lease_until)
            if trio.current_time() >= self._lease_until:
                log.warning("the lease ended without an answer from metad; caches are dropped")
                self._expire()
                await listener.drop_all()
                await self._renewed.wait()

    def _expire(self) -> None:
        if self._renewed.is_set():  # else there may be some who wait for it
            self._renewed = trio.Event()

    async def _follow(self, grant: SessionGrant, listener: Listener) -> None:
        """Follow the event stream; open it again whenever it breaks."""
        while True:
            # Nothing cached may outlive a gap in the stream: an event may have been missed in it.
            self._unfollow()
            await listener.drop_all()
            try:
                await self._follow_once(grant, listener)
            except SessionLost:
                self.lost(grant.session)
            except DFSError as problem:
                log.info("event stream: %s", problem)
                await trio.sleep(RECONNECT_PAUSE_S * random.uniform(0.5, 1.0))

    def _unfollow(self) -> None:
        self._following = False
        if self._followed.is_set():  # else there may be some who wait for it
            self._followed = trio.Event()

    async def _follow_once(self, grant: SessionGrant, listener: Listener) -> None:
        self.streams += 1
        request = FollowEvents(
            session=grant.session,
            open_inodes=listener.open_inodes(),
            leases=listener.leases_in_use(),
            locks=listener.held_locks(),
        )
        async with self._client.stream("session.events", self.address, request) as events:
            while event := await _next_event(events, grant.lease_s):
                if not self._following:
                    # What was asked between the last drop_all and this moment may be kept by
                    # others of this host, while metad, opening the stream, took it for forgotten.
                    await listener.drop_all()
                    listener.stream_opened()
                    self._following = True
                    self._followed.set()
                await self._obey(grant, event, listener)

    async def _obey(self, grant: SessionGrant, event: Event, listener: Listener) -> None:
        if event.recalls:
            listener.recall(event.recalls)
        if event.drop_all:
            await listener.drop_all()
        if event.invalidations:
            await listener.invalidate(event.invalidations)
        if event.drop_all or event.invalidations:
            sent_at = trio.current_time()
            ack = AckEvents(session=grant.session, number=event.number)
            await self._client.call("session.ack", self.address, ack)
            self.renewed(sent_at)


async def _next_event(events: AsyncIterator[Event], silence_s: float) -> Event | None:
    """The next event; None at the end of the stream.

    metad gives signs of life more often than `silence_s`.  A connection that is dead without a word
    (the other host lost its power) must not be waited for: changes of other clients would wait for
    this one as long as it goes on renewing its lease.  Raises Unavailable.
    """
    try:
        with trio.fail_after(silence_s):
            return await anext(events, None)
    except trio.TooSlowError as problem:
        raise Unavailable(f"no sign of life for {silence_s:g} s") from problem
