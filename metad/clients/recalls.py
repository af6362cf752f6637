"""Telling and asking sessions, and waiting for the leases of others.

metad/leases decides; this sends what it says on the event streams and lets operations wait.  Who
waits for a lease waits for the state of metad/leases, not for the acknowledgement of an event:
every wake-up only means "look again", so none of them need be exact, and a lost or doubled message
does no harm.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping

import trio

from dfswire.messages import Lease
from metad.leases.table import Announcement, Blocked
from metad.leases.turns import Turn
from metad.sessions.events import Delivery
from metad.state import State

log = logging.getLogger(__name__)

SLOW_S = 10.0  # a holder that has not given back for so long is mentioned in the log


class Wait:
    """An operation that may not be able to go on at first; others get their turn when it is over.

    Its own turn begins with the first `until_changed` or `take_place`.
    """

    __slots__ = ("exclusive", "recalls", "session", "turn")

    def __init__(self, recalls: Recalls, session: str, exclusive: bool) -> None:
        self.recalls = recalls
        self.session = session
        self.exclusive = exclusive
        self.turn: Turn | None = None

    def __enter__(self) -> Wait:
        return self

    def __exit__(self, *problem: object) -> None:
        if self.turn is not None:
            wanted = self.turn.wanted
            self.recalls.leases.leave(self.turn)
            self.recalls.changed(wanted)

    def take_place(self, wanted: Mapping[int, int]) -> None:
        """Behind those who wait already, and before those who come later."""
        leases = self.recalls.leases
        if self.turn is None:
            self.turn = leases.enter(self.session, wanted, exclusive=self.exclusive)
        elif self.turn.wanted != wanted:
            leases.want(self.turn, wanted)

    async def until_changed(
        self, blocked: Blocked, wanted: Mapping[int, int], seen: int | None = None
    ) -> None:
        """Ask those who are in the way; return when something is different.

        `seen`: the `Recalls.changes_seen` of the look that found it blocked, if that was earlier.
        """
        self.take_place(wanted)
        self.recalls.send(blocked)
        if seen is None or seen == self.recalls.changes_seen:
            await self.recalls.changes(wanted)


class Recalls:
    """See the module's text."""

    def __init__(self, state: State) -> None:
        self.leases = state.leases
        self._streams = state.streams
        self._clock = state.clock
        self.changes_seen = 0
        self._waiting: dict[int, set[trio.Event]] = {}  # inode -> who wants to look again
        self._asked_s: dict[tuple[str, int], float] = {}  # (session, inode) -> since when

    def waiting(self, session: str, *, exclusive: bool = False) -> Wait:
        """A context for an operation of a session that may have to wait."""
        return Wait(self, session, exclusive)

    def announce(self, announcement: Announcement) -> Delivery:
        """Tell everybody who must forget something; returns at once."""
        number = announcement.number
        return self._streams.push(
            announcement.tell, lambda session: self._confirmed(session, number)
        )

    def drop_all(self, session: str, number: int) -> None:
        """Tell a session to forget everything."""
        self._streams.drop_all(session, lambda session: self._confirmed(session, number))

    def send(self, blocked: Blocked) -> None:
        """Ask for leases, and tell those who share to forget."""
        now = self._clock()
        for session, leases in blocked.recalls.items():
            self._streams.recall(session, leases)
            for lease in leases:
                self._asked_s[session, lease.inode] = now
        if blocked.announcement is not None:
            self.announce(blocked.announcement)
        self._mention_slow(now)

    def given_back(self, session: str, lease: Lease) -> None:
        """A session has given back (parts of) a lease; a late message of an earlier one is void."""
        if self.leases.give_back(session, lease):
            self._asked_s.pop((session, lease.inode), None)
            self.changed([lease.inode])

    def changed(self, inodes: Iterable[int]) -> None:
        """Something about the leases of these inodes is different: who waits looks again."""
        self.changes_seen += 1
        if self._waiting:
            for inode in inodes:
                for event in self._waiting.get(inode, ()):
                    event.set()

    def session_changed(self, session: str) -> None:
        """A session ended, or has opened its stream: everybody looks again."""
        for key in [key for key in self._asked_s if key[0] == session]:
            if session not in self.leases:
                del self._asked_s[key]
        self.changed(list(self._waiting))

    async def changes(self, inodes: Iterable[int]) -> None:
        """Wait until one of these inodes is mentioned to `changed`."""
        event = trio.Event()
        inodes = list(inodes)
        for inode in inodes:
            self._waiting.setdefault(inode, set()).add(event)
        try:
            with trio.move_on_after(SLOW_S):
                await event.wait()
        finally:
            for inode in inodes:
                self._waiting[inode].discard(event)
                if not self._waiting[inode]:
                    del self._waiting[inode]

    def _confirmed(self, session: str, number: int) -> None:
        forgotten, dropped = self.leases.confirmed(session, number)
        self.changed(list(self._waiting) if dropped else forgotten)

    def _mention_slow(self, now: float) -> None:
        """Once for each lease, by whoever waits then."""
        for (session, inode), asked_s in self._asked_s.items():
            if now - asked_s >= SLOW_S:
                log.info(
                    "session %s has not given back its lease on inode %d for %.0f s",
                    session,
                    inode,
                    now - asked_s,
                )
                self._asked_s[session, inode] = math.inf
