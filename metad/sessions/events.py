"""Event streams: how sessions are told what to forget, and how metad waits until they have.

service.py pushes a plan made by metad/leases and gets a `Delivery`, which is done when every
session of the plan has acknowledged, has reopened its stream (it has forgotten everything then), or
is gone.  Nothing here gives up early: a session that can't be reached is waited out until its fence
time, when `end` is called for it.

A push counts as one tick of the session's stream.  Ticks and the numbers of events are not the
same: what is pushed while the client reads slowly is merged into one event.  Numbers go on when the
client reopens its stream, so a late acknowledgement of an event of the previous connection confirms
nothing of the present one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence

import trio

from dfswire.errors import SessionLost, Stale
from dfswire.messages import Event, EventPosition, Invalidated, Invalidation, Lease

PENDING_MAX = 10_000  # a client that lags further is made to reconnect, which forgets everything


class Delivery:
    """One push, and the sessions that have not yet confirmed it.

    `on_confirmed` is called for each of them, when it has.
    """

    def __init__(
        self,
        sessions: Collection[str] = (),
        on_confirmed: Callable[[str], object] = lambda session: None,
    ) -> None:
        self._missing = set(sessions)
        self._on_confirmed = on_confirmed
        self._done = trio.Event()
        if not self._missing:
            self._done.set()

    @property
    def done(self) -> bool:
        return self._done.is_set()

    async def wait(self) -> None:
        """Return when every session has confirmed, or can't see anything stale any more."""
        await self._done.wait()

    def confirmed(self, session: str) -> None:
        self._missing.discard(session)
        self._on_confirmed(session)
        if not self._missing:
            self._done.set()


class Follower:
    """One open stream of a session: an iterator of events, until replaced, cut or ended.

    The first event is a sign of life, so that the client knows that its stream is open.
    """

    def __init__(self, streams: EventStreams, session: str, number: int) -> None:
        self._streams = streams
        self._session = session
        self._changed = trio.Event()
        self._changed.set()
        self._pending: dict[tuple[int, bytes], int] = {}
        self._recalls: dict[tuple[int, int], Lease] = {}
        self._drop_all = False
        self._closed = False
        self.number = number  # of the last event that was sent
        self.sent: deque[tuple[int, int]] = deque()  # (number of an event, its last tick)

    def __aiter__(self) -> Follower:
        return self

    async def __anext__(self) -> Event:
        with trio.move_on_after(self._streams.sign_of_life_s):
            await self._changed.wait()
        if self._closed:
            raise StopAsyncIteration
        self._changed = trio.Event()
        return self._take()

    async def aclose(self) -> None:
        """The connection is gone; the session stays."""
        self._streams.disconnect(self)

    @property
    def session(self) -> str:
        return self._session

    def add(self, invalidations: Sequence[Invalidation], drop_all: bool) -> bool:
        """Queue for the next event; False when the client lags too far behind."""
        for each in invalidations:
            key = (each.inode, each.name)
            self._pending[key] = self._pending.get(key, 0) | each.what
        self._drop_all = self._drop_all or drop_all
        self._changed.set()
        return len(self._pending) <= PENDING_MAX

    def recall(self, leases: Sequence[Lease]) -> None:
        """Ask for these in the next event; what is said last of a lease has all that is wanted."""
        for lease in leases:
            self._recalls[(lease.inode, lease.number)] = lease
        self._changed.set()

    def close(self) -> None:
        """End the iteration; whoever waits for the next event wakes up."""
        self._closed = True
        self._changed.set()

    def _take(self) -> Event:
        self.number += 1
        self.sent.append((self.number, self._streams.ticks(self._session)))
        invalidations = [
            Invalidation(inode=inode, what=what, name=name)
            for (inode, name), what in self._pending.items()
            if not self._drop_all or what & Invalidated.GONE  # a question, not only news
        ]
        event = Event(
            number=self.number,
            tick=self.sent[-1][1],
            invalidations=invalidations,
            drop_all=self._drop_all,
            recalls=list(self._recalls.values()),
        )
        self._pending, self._recalls, self._drop_all = {}, {}, False
        return event


class _Stream:
    """What outlives one connection: ticks, and the deliveries that wait for them."""

    def __init__(self) -> None:
        self.ticks = 0
        self.opened = 0  # the number of the last FollowEvents
        self.number = 0  # of the last event of earlier connections
        self.waiting: deque[tuple[int, Delivery]] = deque()
        self.follower: Follower | None = None


class EventStreams:
    """The streams of all sessions."""

    def __init__(self, sign_of_life_s: float = 5.0) -> None:
        self.sign_of_life_s = sign_of_life_s
        self._streams: dict[str, _Stream] = {}

    def open(self, session: str) -> None:
        """A session exists; until it follows its stream, pushes to it are not confirmed."""
        self._streams[session] = _Stream()

    def end(self, session: str) -> None:
        """The session is closed or fenced: nobody waits for it any more.  Idempotent."""
        stream = self._streams.pop(session, None)
        if stream is None:
            return
        if stream.follower is not None:
            stream.follower.close()
        self._confirm(session, stream, stream.ticks)

    def check_new(self, session: str, number: int) -> None:
        """Is this the number of a FollowEvents that comes after all before it?  Raises Stale."""
        stream = self._streams.get(session)
        if stream is not None and number <= stream.opened:
            raise Stale(f"stream {number} of the session comes after stream {stream.opened}")

    def follow(self, session: str, number: int, *, confirms: bool = True) -> Follower:
        """Open (or reopen) the stream.  Raises SessionLost.

        If the client has forgotten everything before this, that `confirms` all earlier pushes; else
        the acknowledgement of what is pushed next does.  An older connection of the same session
        ends.
        """
        stream = self._streams.get(session)
        if stream is None:
            raise SessionLost(f"session {session} is not known (any more)")
        if stream.follower is not None:
            self.disconnect(stream.follower)
        stream.opened = number
        stream.follower = Follower(self, session, stream.number)
        if confirms:
            self._confirm(session, stream, stream.ticks)
        return stream.follower

    def disconnect(self, follower: Follower) -> None:
        """This connection is over; a newer one of the same session is not touched."""
        follower.close()
        stream = self._streams.get(follower.session)
        if stream is not None and stream.follower is follower:
            stream.number, stream.follower = follower.number, None

    def connected(self, session: str) -> bool:
        stream = self._streams.get(session)
        return stream is not None and stream.follower is not None

    def ticks(self, session: str) -> int:
        """How many pushes the session's stream has seen."""
        stream = self._streams.get(session)
        return stream.ticks if stream is not None else 0

    def unheard(self, session: str) -> EventPosition | None:
        """Up to where the session has not confirmed yet; None when it has confirmed all."""
        stream = self._streams.get(session)
        if stream is None or not stream.waiting:
            return None
        return EventPosition(stream=stream.opened, tick=stream.ticks)

    def push(
        self,
        plan: Mapping[str, Sequence[Invalidation]],
        on_confirmed: Callable[[str], object] = lambda session: None,
    ) -> Delivery:
        """Tell each session of the plan; returns at once."""
        delivery = Delivery([session for session in plan if session in self._streams], on_confirmed)
        for session, invalidations in plan.items():
            self._push(session, invalidations, False, delivery)
        return delivery

    def push_to_all(self, invalidations: Sequence[Invalidation]) -> Delivery:
        """Tell every session; returns at once."""
        return self.push(dict.fromkeys(self._streams, invalidations))

    def drop_all(
        self, session: str, on_confirmed: Callable[[str], object] = lambda session: None
    ) -> None:
        """Tell the session to forget everything that it has cached."""
        self._push(session, (), True, Delivery([session], on_confirmed))

    def recall(self, session: str, leases: Sequence[Lease]) -> None:
        """Ask for leases.  Nobody waits for the event: what counts is that they are given back.

        Without a connection nothing is queued: whoever opens the stream is asked again.
        """
        stream = self._streams.get(session)
        if stream is not None and stream.follower is not None:
            stream.follower.recall(leases)

    def wait_for_reopening(self, sessions: Collection[str]) -> Delivery:
        """Done when each of these sessions has opened its stream, or is gone."""
        return self.push(dict.fromkeys(sessions, ()))

    def acknowledge(self, session: str, number: int) -> None:
        """The client has forgotten everything up to event `number`, if that was ever sent."""
        stream = self._streams.get(session)
        if stream is None or stream.follower is None or number > stream.follower.number:
            return
        sent = stream.follower.sent
        tick = 0
        while sent and sent[0][0] <= number:
            tick = sent.popleft()[1]
        self._confirm(session, stream, tick)

    def _push(
        self,
        session: str,
        invalidations: Sequence[Invalidation],
        drop_all: bool,
        delivery: Delivery,
    ) -> None:
        stream = self._streams.get(session)
        if stream is None:
            return
        stream.ticks += 1
        stream.waiting.append((stream.ticks, delivery))
        # Without a connection there is nothing to queue: reopening it forgets everything.
        if stream.follower is not None and not stream.follower.add(invalidations, drop_all):
            self.disconnect(stream.follower)

    @staticmethod
    def _confirm(session: str, stream: _Stream, tick: int) -> None:
        while stream.waiting and stream.waiting[0][0] <= tick:
            stream.waiting.popleft()[1].confirmed(session)
