"""What sessions may have in their caches: who must be told to forget what, and what may be kept.

Pure; the lower half of table.py, which adds what sessions hold exclusively.  `now` is an argument
(monotonic seconds).  The promise: whoever may have something cached is named, at worst too often,
until it has confirmed that it forgot; and what somebody is about to change nobody else begins to
cache (changes.py).

Each session remembers the inodes that it was told about, and an invalidation asks every session.
Sessions are tens or hundreds and inodes are millions, so an index by inode would cost more memory
than it saves time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import msgspec

from dfswire.errors import SessionLost
from dfswire.messages import Invalidation
from metad.leases.changes import AFTER, NOTHING, Change, Changes, Fleeting
from metad.leases.exclusive import Exclusives
from metad.leases.knowledge import ATTR, NAMES, Session


@dataclass(frozen=True)
class Announcement:
    """What each session must be told.  A session that has forgotten it all `confirmed(number)`."""

    number: int
    tell: dict[str, list[Invalidation]]


class Sharing:
    """All sessions, and what each may have cached."""

    def __init__(
        self, fence_s: float, held_inodes_max: int = 1_000_000, first_lease: int = 0
    ) -> None:
        """`first_lease`: larger than the number of any lease that an earlier metad granted."""
        self.changes = Changes()
        self._fence_s = fence_s
        self._held_max = held_inodes_max
        self._sessions: dict[str, Session] = {}
        self._unsynced: set[str] = set()
        self._announcements = 0
        self._exclusives = Exclusives(first_lease)

    # sessions

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

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

    # what is shared

    def hold(self, session: str, told: Mapping[int, int], fleeting: Fleeting = NOTHING) -> int:
        """The session is about to be told of these parts of inodes.

        Returns 0, or when that was more than is remembered per session the number of an
        announcement: the session must be told to drop everything, and has not `confirmed` that
        before.  (What it was told in this very call stays registered.)  What is `fleeting` of it
        the session will not keep; but it may open the inodes.
        """
        found = self._sessions[session]
        held = found.held
        if fleeting:
            told = dict(told)
            for inode in fleeting.attributes:
                told[inode] &= ~ATTR
            for inode in fleeting.names:
                told[inode] &= ~NAMES
        for inode, parts in told.items():
            held[inode] = held.get(inode, 0) | parts
        if len(held) <= self._held_max:
            return 0
        found.held = dict(told)
        found.open_known = False
        self._announcements += 1
        found.dropping = self._announcements
        return found.dropping

    def foretell(
        self, change: Change, invalidations: Iterable[Invalidation]
    ) -> Announcement | None:
        """Who must be told what before something is changed; None when nobody (any more): then it
        is to be changed in this very step.

        From now on until `changes.end` nobody else may keep anything of it.  (Also when nobody was
        told: who asks before the commit is answered with what was before.)
        """
        before = [
            each
            if not each.what & AFTER
            else msgspec.structs.replace(each, what=each.what & ~AFTER)
            for each in invalidations
            if each.what & ~AFTER
        ]
        announcement = self._tell(before, change.session, partial(change.untold, executed=False))
        self.changes.add(change, before)
        if not announcement.tell:
            return None
        change.note(announcement.tell)
        return announcement

    def invalidate(
        self,
        invalidations: Iterable[Invalidation],
        by_session: str,
        change: Change | None = None,
    ) -> Announcement:
        """Who must be told what, because `by_session` changed something.

        But for what they were told before it was: then `change` knows that.
        """
        untold = _all if change is None else partial(change.untold, executed=True)
        return self._tell(list(invalidations), by_session, untold)

    def _tell(
        self,
        changes: list[Invalidation],
        by_session: str,
        untold: Callable[[str, Invalidation], Invalidation | None],
    ) -> Announcement:
        """Those who may have something of it, and what of the untold they must forget.

        A session is not told again of a part before it asks again, except while it has not yet
        confirmed: then it is, so that whoever waits for this announcement waits for that one too.
        Who has a part exclusively is not told (of an atime, which nobody recalls a lease for).
        (NAME is one name of many; the others stay cached.)
        """
        self._announcements += 1
        tell: dict[str, list[Invalidation]] = {}
        inodes = {change.inode for change in changes}
        for each in self._sessions.values():
            if each.session != by_session and not each.knows_none(inodes):
                told = [
                    change
                    for change in filter(None, (untold(each.session, one) for one in changes))
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


def _all(session: str, change: Invalidation) -> Invalidation:
    """Nobody was told before."""
    return change
