"""Who has what: sessions, what each may have in its caches, and what it holds exclusively.

Pure: `now` is an argument (monotonic seconds), and functions return what must be done instead of
doing it.  metad/clients asks, metad/sessions/events.py delivers.  The promise: whoever may have
something cached is named, at worst too often, until it has confirmed that it forgot; a lease is
granted only when nobody else has or may have the parts, and ends only when its holder says so or
can't do anything any more; a session is forgotten only when its fence time has passed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dfswire.messages import Lease
from metad.leases.exclusive import Recalls
from metad.leases.knowledge import ATTR, DATA, NAMES, Session, invalidation_of
from metad.leases.sharing import Announcement, Sharing
from metad.leases.turns import Turn, Turns

__all__ = ["ATTR", "DATA", "NAMES", "Announcement", "Blocked", "Leases", "Session"]


@dataclass(frozen=True)
class Blocked:
    """Something can't go on yet.  Send the recalls and the announcement; then wait for a change."""

    recalls: Recalls = field(default_factory=dict)
    announcement: Announcement | None = None


class Leases(Sharing):
    """All sessions, what they may have cached, and what they hold exclusively."""

    def __init__(
        self, fence_s: float, held_inodes_max: int = 1_000_000, first_lease: int = 0
    ) -> None:
        """As Sharing."""
        super().__init__(fence_s, held_inodes_max, first_lease)
        self._turns = Turns()

    # sessions

    def connect(self, session: str, used: Sequence[Lease] = ()) -> Blocked:
        """The session (re)opened its event stream: it has forgotten everything it had cached.

        `used` are the leases that it still uses.  After a restart they are taken as granted; else
        it keeps what it was granted and is asked again for what was recalled, and for what it does
        not use.  A lease that is not its own (it was given back, but the answer is on its way) it
        must forget too: the announcement says so, and nothing that it was told before counts as
        confirmed earlier.  What it was told about stays in `held` as possibly open, because a reply
        may be on its way to it.
        """
        found, own = self._sessions[session], self._exclusives
        if not found.synced:
            void = [lease for lease in used if not own.adopt(session, lease)]
        else:
            void = [lease for lease in used if lease.parts & ~own.parts(session, lease.inode)]
        found.reopened()
        self._unsynced.discard(session)
        recalls = own.reopened(session, used) + void
        return Blocked({session: recalls} if recalls else {}, self._tell_void(found, void))

    def _tell_void(self, found: Session, void: Sequence[Lease]) -> Announcement | None:
        if not void:
            return None
        self._announcements += 1
        for lease in void:
            found.telling[lease.inode] = (lease.parts, self._announcements)
        tell = [invalidation_of(each.inode, each.parts) for each in void]
        return Announcement(self._announcements, {found.session: tell})

    def end(self, session: str) -> list[int]:
        """Forget a session; returns the inodes of which it had a lease.  Idempotent."""
        self._sessions.pop(session, None)
        self._unsynced.discard(session)
        return self._exclusives.end(session)

    def forget(self, session: str, inode: int) -> None:
        """The session has nothing of the inode, so that deleted files do not fill up memory."""
        if session in self._sessions:
            self._sessions[session].held.pop(inode, None)
            self._exclusives.drop(session, inode)

    # what is exclusive

    @property
    def exclusive_count(self) -> int:
        """Exclusive leases of all sessions."""
        return self._exclusives.count

    def is_alone(self, session: str) -> bool:
        """Can nothing that this session asks or changes contradict anybody's lease?"""
        return (
            self._exclusives.only_of(session)
            and not self._turns.any_exclusive
            and (not self._unsynced or self._unsynced == {session})
        )

    def obstacles(
        self, session: str, wanted: Mapping[int, int], turn: Turn | None = None
    ) -> Blocked | None:
        """May the session be told of (or change) these parts now?

        None: yes, if it is done in this very step.  Otherwise somebody has a lease on them, or may
        have one, or has waited longer for one.
        """
        if self.is_alone(session):
            return None
        recalls = self._exclusives.recall(session, wanted)
        if recalls or self._exclusives.contradicts(session, wanted):
            return Blocked(recalls)
        if wanted and self._unsynced - {session}:
            return Blocked()
        for inode, parts in wanted.items():
            if parts & ~self._exclusives.parts(session, inode) and self._turns.is_behind(
                session, inode, parts, turn, exclusive=False
            ):
                return Blocked()
        return None

    def take(self, session: str, inode: int, parts: int, turn: Turn | None) -> Lease | Blocked:
        """An exclusive lease, or why it can't be granted yet.

        Whatever is read in the same step in which this grants is the newest there is.
        """
        wanted = {inode: parts}
        if self._unsynced or self._turns.is_behind(session, inode, parts, turn, exclusive=True):
            return Blocked()
        recalls = self._exclusives.recall(session, wanted)
        announcement = self._tell_sharers(session, inode, parts)
        if recalls or announcement or not self._is_free(session, inode, parts):
            return Blocked(recalls, announcement)
        return self._exclusives.grant(session, inode, parts)

    def take_if_free(self, session: str, inode: int, parts: int) -> Lease | None:
        """The lease, if it can be had without asking anybody.

        And only if the session's own knowledge of the parts is still true: it was told of them
        before, and nobody has changed them since.
        """
        found = self._sessions.get(session)
        if found is None or self._unsynced or parts & ~found.held.get(inode, 0):
            return None
        if self._turns.is_behind(session, inode, parts, None, exclusive=True):
            return None
        for each in self._sessions.values():
            if each is not found and each.may_cache(inode, parts):
                return None
        if not self._is_free(session, inode, parts):
            return None
        return self._exclusives.grant(session, inode, parts)

    def _tell_sharers(self, session: str, inode: int, parts: int) -> Announcement | None:
        """Those who share the parts must forget them; who leased them is recalled before."""
        for each in self._sessions.values():
            own = self._exclusives.parts(each.session, inode)
            if each.session != session and each.held.get(inode, 0) & parts & ~own:
                return self.invalidate([invalidation_of(inode, parts)], session)
        return None

    def _is_free(self, session: str, inode: int, parts: int) -> bool:
        """Nobody else has the parts leased or was told to forget them and has not done so yet.

        The session itself neither: an old invalidation must not arrive when the lease is there.
        """
        if self._exclusives.contradicts(session, {inode: parts}):
            return False
        if self.changes.by_others(session, inode):
            return False
        return not any(
            each.dropping or each.is_told(inode) & parts for each in self._sessions.values()
        )

    def give_back(self, session: str, lease: Lease) -> bool:
        """These parts are only shared from now on.  False: that lease ended before."""
        ended = self._exclusives.give_back(session, lease)
        if ended and session in self._sessions:
            held = self._sessions[session].held
            held[lease.inode] = held.get(lease.inode, 0) | ended
        return bool(ended)

    def is_current(self, session: str, lease: Lease) -> bool:
        """Is it still that session's, and not asked for by anybody?"""
        return self._exclusives.current(session, lease)

    # those who wait

    def enter(self, session: str, wanted: Mapping[int, int], *, exclusive: bool = False) -> Turn:
        """A turn for an operation that must wait; `leave` it in any case."""
        return self._turns.enter(session, wanted, exclusive=exclusive)

    def want(self, turn: Turn, wanted: Mapping[int, int]) -> None:
        """What it waits for has changed; its place stays."""
        self._turns.want(turn, wanted)

    def leave(self, turn: Turn) -> None:
        """It is done, or has given up."""
        self._turns.leave(turn)
