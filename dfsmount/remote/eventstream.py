"""What metad tells one session: the stream is followed, obeyed, and opened again when it breaks.

Each event goes to the `Listener` in two steps.  At once this process forgets what is no longer
true; then the kernel is made to forget, and only after that the event is acknowledged, because
metad lets the other client's change complete when it has that acknowledgement.  The steps are apart
since the kernel may keep an invalidation waiting for a call that this client has not answered yet,
and that answer may have to wait for the first step of a later event (`reached`): what stands in an
answer is never newer than what is believed beside it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import trio

from dfsmount.ports import Forgotten, Listener
from dfsmount.remote.leaseclock import LeaseClock
from dfswire.client import Client
from dfswire.errors import DFSError, SessionLost, Stale, Unavailable
from dfswire.messages import Event, EventPosition
from dfswire.metadata import AckEvents, FollowEvents, Renewed, RenewSession, SessionGrant

log = logging.getLogger(__name__)

RECONNECT_PAUSE_S = 0.2


class EventStream:
    """The stream of one session at a time."""

    def __init__(
        self, client: Client, address: str, clock: LeaseClock, renewed: Callable[[float], None]
    ) -> None:
        """`renewed` is told when, by `clock`, a request was sent that has renewed the lease."""
        self.count = 0  # how often metad was told what is open and locked
        self._client = client
        self._address = address
        self._clock = clock
        self._renewed = renewed
        self._instance = ""  # the start of metad that is spoken to
        self._is_open = False
        self._opened = trio.Event()
        self._tick = 0  # of the last event that this process has obeyed
        self._progress = trio.Event()

    # For those who depend on it

    @property
    def is_open(self) -> bool:
        """Is this client told of changes?"""
        return self._is_open

    async def opened(self) -> None:
        """Wait until the stream is open."""
        while not self._is_open:
            await self._opened.wait()

    async def reached(self, told: EventPosition) -> None:
        """Wait until this process has forgotten what was pushed up to there.

        Not for a stream that has ended: nothing that is older is believed any more.
        """
        while self._is_open and told.stream == self.count and self._tick < told.tick:
            await self._progress.wait()

    # For the session

    async def follow(self, grant: SessionGrant, listener: Listener) -> None:
        """Follow it, and open it again whenever it breaks.  Raises SessionLost."""
        self._instance = grant.instance
        while True:
            # Nothing cached may outlive a gap in the stream: an event may have been missed in it.
            self.close()
            await listener.drop_all()
            try:
                await self._follow_once(grant, listener)
            except SessionLost:
                raise
            except Stale as problem:  # metad was restarted; which one is there now is asked next
                log.info("event stream: %s", problem)
                self._instance = ""
            except DFSError as problem:
                log.info("event stream: %s", problem)
                await trio.sleep(RECONNECT_PAUSE_S * random.uniform(0.5, 1.0))

    def close(self) -> None:
        """Nothing that is cached is believed until it is open again."""
        self._is_open = False
        if self._opened.is_set():  # else there may be some who wait for it
            self._opened = trio.Event()
        self._has_progressed()

    # Inside

    def _has_progressed(self) -> None:
        self._progress.set()
        self._progress = trio.Event()

    async def _follow_once(self, grant: SessionGrant, listener: Listener) -> None:
        request = await self._introduce(grant, listener)
        async with self._client.stream("session.events", self._address, request) as events:
            if (first := await _next_event(events, grant.lease_s)) is None:
                return
            # What was asked between the last drop_all and this moment may be kept by others of
            # this host, while metad, opening the stream, took it for forgotten.
            await listener.drop_all()
            listener.stream_opened()
            self._is_open = True
            self._opened.set()
            await self._obey_all(first, events, grant, listener)

    async def _introduce(self, grant: SessionGrant, listener: Listener) -> FollowEvents:
        if not self._instance:
            sent_at = self._clock.now_s()
            renewed: Renewed = await self._client.call(
                "session.renew", self._address, RenewSession(session=grant.session)
            )
            self._renewed(sent_at)
            self._instance = renewed.instance
        self.count += 1
        self._tick = 0  # those of another metad begin anew
        return FollowEvents(
            session=grant.session,
            instance=self._instance,
            number=self.count,
            open_inodes=listener.open_inodes(),
            leases=listener.leases_in_use(),
            locks=listener.held_locks(),
        )

    async def _obey_all(
        self,
        first: Event,
        events: AsyncIterator[Event],
        grant: SessionGrant,
        listener: Listener,
    ) -> None:
        """Until the stream ends.  Raises DFSError when it breaks, or can't be acknowledged."""
        kernel = _SecondSteps(listener, partial(self._acknowledge, grant))
        problem: DFSError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kernel.run, nursery.cancel_scope)
            event: Event | None = first
            try:
                while event is not None:
                    self._obey(event, listener, kernel)
                    event = await _next_event(events, grant.lease_s)
            except DFSError as caught:
                problem = caught
            nursery.cancel_scope.cancel()
        if (broken := kernel.problem or problem) is not None:
            raise broken

    def _obey(self, event: Event, listener: Listener, kernel: _SecondSteps) -> None:
        if event.recalls:
            listener.recall(event.recalls)
        if event.drop_all:
            kernel.add(event.number, listener.forget_all())
        if event.invalidations:
            kernel.add(event.number, listener.forget(event.invalidations))
        self._tick = event.tick
        self._has_progressed()

    async def _acknowledge(self, grant: SessionGrant, number: int) -> None:
        sent_at = self._clock.now_s()
        ack = AckEvents(session=grant.session, number=number)
        await self._client.call("session.ack", self._address, ack)
        self._renewed(sent_at)


class _SecondSteps:
    """What the kernel must still forget, and the acknowledgement that follows.

    What comes while the kernel is busy is told it in one go.
    """

    def __init__(self, listener: Listener, acknowledge: Callable[[int], Awaitable[None]]) -> None:
        self.problem: DFSError | None = None
        self._listener = listener
        self._acknowledge = acknowledge
        self._news = trio.Event()
        self._number = 0
        self._left = Forgotten()

    def add(self, number: int, forgotten: Forgotten) -> None:
        """This process has forgotten something, because of event `number`."""
        self._number = number
        self._left.everything |= forgotten.everything
        self._left.names += forgotten.names
        for inode, pages in forgotten.inodes.items():
            self._left.inodes[inode] = self._left.inodes.get(inode, False) or pages
        self._news.set()

    async def run(self, scope: trio.CancelScope) -> None:
        """Until cancelled, or until an acknowledgement fails: then `scope` is cancelled."""
        try:
            while True:
                await self._news.wait()
                self._news = trio.Event()
                number, left, self._left = self._number, self._left, Forgotten()
                await self._listener.tell_kernel(left)
                await self._acknowledge(number)
        except DFSError as problem:
            self.problem = problem
            scope.cancel()


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
