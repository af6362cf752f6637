"""The calls about the journal, and what else of metad depends on it.

chunkds follow and acknowledge, operators look at positions and end the hold after a restore.
`once_safe` wraps the calls that read: what they show must not be lost with this host any more.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from dfswire.errors import Removed, SessionLost
from dfswire.journal import AckJournal, FollowJournal, JournalStatus
from dfswire.messages import Empty
from metad.journal.followers import Followers
from metad.journal.stream import Follower
from metad.recovery.fence import reclaim_held, release
from metad.recovery.snapshots import Snapshots
from metad.state import State

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


class JournalCalls:
    """See the module's text."""

    def __init__(self, state: State, followers: Followers, snapshots: Snapshots) -> None:
        self._state = state
        self._followers = followers
        self._snapshots = snapshots

    async def follow(self, request: FollowJournal) -> Follower:
        """Raises SessionLost for a server that metad does not know, Removed, and as Followers does.

        An old copy of the database may not know a server that has more of the journal: it comes
        again when it has registered, and is heard then.
        """
        servers, server_id = self._state.servers, request.server_id
        if servers.get(server_id) is None:
            raise SessionLost(f"server {server_id} is not registered")
        if servers.server_admin(server_id) == "removed":
            raise Removed(f"server {server_id} was removed: its copy of the journal does not count")
        return await self._followers.follow(request)

    async def acknowledge(self, request: AckJournal) -> Empty:
        await self._followers.acknowledge(request)
        return Empty()

    async def status(self, request: Empty) -> JournalStatus:
        """Positions and copies."""
        newest = self._snapshots.newest
        return JournalStatus(
            position=self._state.db.position,
            safe=self._followers.safe,
            wanted=self._followers.copies,
            copies=self._followers.in_step,
            followers=self._followers.status(),
            snapshot=newest.position if newest is not None else None,
            reclaim_held=reclaim_held(self._state.db),
        )

    async def release(self, request: Empty) -> JournalStatus:
        """The restored metadata is what counts: what it does not know may be deleted."""
        db, held = self._state.db, reclaim_held(self._state.db)
        if held:
            await db.write(lambda: release(db))
            self._state.event_log.add("metad.released", self._state.cluster_id, f"was held: {held}")
        return await self.status(request)

    def once_safe(self, answer: Callable[[T], Awaitable[R]]) -> Callable[[T], Awaitable[R]]:
        """`answer`, given only when what it was read from can't be lost any more."""

        async def wrapped(request: T) -> R:
            reply = await answer(request)
            if self._followers.safe < self._followers.offered.number:
                await self._followers.until_safe(self._state.db.visible)
            return reply

        return wrapped
