"""Who has what: sessions, what each may have in its caches, and what it holds exclusively.

Pure: `now` is an argument (monotonic seconds), and functions return what must be done instead of
doing it.  metad/clients asks, metad/sessions/events.py delivers.  The promise: whoever may have
something cached is named, at worst too often, until it has confirmed that it forgot; a lease is
granted only when nobody else has or may have the parts, and ends only when its holder says so or
can't do anything any more; a session is forgotten only when its fence time has passed.

Each session remembers the inodes that it was told about, and an invalidation asks every session.
Sessions are tens or hundreds and inodes are millions, so an index by inode would cost more memory
than it saves time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dfswire.errors import SessionLost
from dfswire.messages import Invalidation, Lease
from metad.leases.exclusive import Exclusives, Recalls
from metad.leases.knowledge import ATTR, DATA, NAMES, Session, invalidation_of
from metad.leases.turns import Turn, Turns

__all__ = ["ATTR", "DATA", "NAMES", "Announcement", "Blocked", "Leases", "Session"]


@dataclass(frozen=True)
class Announcement:
    """What each session must be told.  A session that has forgotten it all `confirmed(number)`."""

    number: int
    tell: dict[str, list[Invalidation]]


@dataclass(frozen=True)
class Blocked:
    """Something can't go on yet.  Send the recalls and the announcement; then wait for a change."""

    recalls: Recalls = field(default_factory=dict)
    announcement: Announcement | None = None


class Leases:
    """All sessions, and what they have."""

    def __init__(
        self, fence_s: float, held_inodes_max: int = 1_000_000, first_lease: int = 0
    ) -> None:
        """`first_lease`: larger than the number of any lease that an earlier metad granted."""
        self._fence_s = fence_s
        self._held_max = held_inodes_max
        self._sessions: dict[str, Session] = {}
        self._unsynced: set[str] = set()
        self._announcements = 0
        self._exclusives = Exclusives(first_lease)
        self._turns = Turns()

    # sessions

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    @property
    def exclusive_count(self) -> int:
        """Exclusive leases of all sessions."""
        return self._exclusives.count

    def __contains__(self, session: str) -> bool:
        return session in self._sessions

    def open(self, session: str, now: float, *, synced: bool = True) -> None:
        """A new session, or with `synced` False one that metad finds in its database at start."""
        self._sessions[session] = Session(session, now + self._fence_s, synced)
        if not synced:
            self._unsynced.add(session)

    def check(self, session: str, now: float) -> Session:
        """The session, without renewing it.  Raises SessionLost when unknown or past its fence."""
        found = self._sessions.get(session)
        if found is None or now >= found.expires_s:
            raise SessionLost(f"session {session} is not known (any more)")
        return found

    def renew(self, session: str, now: float) -> None:
        """The client was heard: its lease starts anew.  Raises SessionLost."""
        self.check(session, now).expires_s = now + self._fence_s

    def expired(self, now: float) -> list[str]:
        """Sessions whose fence time has passed; nothing of theirs is accepted any more."""
        return [each.session for each in self if now >= each.expires_s]

    def next_expiry(self, now: float) -> float:
        """No session's fence time passes before this."""
        return min((each.expires_s for each in self), default=now + self._fence_s)

    def unsynced(self) -> list[str]:
        """Sessions that have not opened their event stream since metad started."""
        return [each.session for each in self if not each.synced]

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

    # what is shared

    def hold(self, session: str, told: Mapping[int, int]) -> int:
        """The session is about to be told of these parts of inodes.

        Returns 0, or when that was more than is remembered per session the number of an
        announcement: the session must be told to drop everything, and has not `confirmed` that
        before.  (What it was told in this very call stays registered.)
        """
        found = self._sessions[session]
        held = found.held
        for inode, parts in told.items():
            held[inode] = held.get(inode, 0) | parts
        if len(held) <= self._held_max:
            return 0
        found.held = dict(told)
        found.open_known = False
        self._announcements += 1
        found.dropping = self._announcements
        return found.dropping

    def invalidate(self, invalidations: Iterable[Invalidation], by_session: str) -> Announcement:
        """Who must be told what, because `by_session` changed something.

        A session is not told again of a part before it asks again, except while it has not yet
        confirmed: then it is, so that whoever waits for this announcement waits for that one too.
        Who has a part exclusively is not told (of an atime, which nobody recalls a lease for).
        (NAME is one name of many; the others stay cached.)
        """
        self._announcements += 1
        tell: dict[str, list[Invalidation]] = {}
        changes = list(invalidations)
        inodes = {change.inode for change in changes}
        for each in self._sessions.values():
            if each.session != by_session and not each.knows_none(inodes):
                told = [
                    change
                    for change in changes
                    if each.must_forget(
                        change,
                        self._announcements,
                        leased=self._exclusives.parts(each.session, change.inode),
                    )
                ]
                if told:
                    tell[each.session] = told
        return Announcement(self._announcements, tell)

    def confirmed(self, session: str, number: int) -> tuple[list[int], bool]:
        """The session has forgotten all that it was told up to this announcement.

        Returns the inodes of which it has forgotten something, and whether it dropped everything.
        """
        found = self._sessions.get(session)
        return found.confirmed(number) if found is not None else ([], False)

    def forget(self, session: str, inode: int) -> None:
        """The session has nothing of the inode, so that deleted files do not fill up memory."""
        if session in self._sessions:
            self._sessions[session].held.pop(inode, None)
            self._exclusives.drop(session, inode)

    # what is exclusive

    def is_alone(self, session: str) -> bool:
        """Can nothing that this session asks or changes contradict anybody's lease?"""
        return (
            self._exclusives.only_of(session)
            and not self._turns
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

    def take(
        self,
        session: str,
        inode: int,
        parts: int,
        turn: Turn | None,
        is_changing: Callable[[str, int], bool],
    ) -> Lease | Blocked:
        """An exclusive lease, or why it can't be granted yet.

        `is_changing(session, inode)`: was a change by another session executed and not announced?
        Whatever is read in the same step in which this grants is the newest there is.
        """
        wanted = {inode: parts}
        if self._unsynced or self._turns.is_behind(session, inode, parts, turn, exclusive=True):
            return Blocked()
        recalls = self._exclusives.recall(session, wanted)
        announcement = self._tell_sharers(session, inode, parts)
        if recalls or announcement or not self._is_free(session, inode, parts, is_changing):
            return Blocked(recalls, announcement)
        return self._exclusives.grant(session, inode, parts)

    def take_if_free(
        self, session: str, inode: int, parts: int, is_changing: Callable[[str, int], bool]
    ) -> Lease | None:
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
        if not self._is_free(session, inode, parts, is_changing):
            return None
        return self._exclusives.grant(session, inode, parts)

    def _tell_sharers(self, session: str, inode: int, parts: int) -> Announcement | None:
        """Those who share the parts must forget them; who leased them is recalled before."""
        for each in self._sessions.values():
            own = self._exclusives.parts(each.session, inode)
            if each.session != session and each.held.get(inode, 0) & parts & ~own:
                return self.invalidate([invalidation_of(inode, parts)], session)
        return None

    def _is_free(
        self, session: str, inode: int, parts: int, is_changing: Callable[[str, int], bool]
    ) -> bool:
        """Nobody else has the parts leased or was told to forget them and has not done so yet.

        The session itself neither: an old invalidation must not arrive when the lease is there.
        """
        if self._exclusives.contradicts(session, {inode: parts}) or is_changing(session, inode):
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
