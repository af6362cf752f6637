"""Who may have what in its cache: sessions, what each holds, and who has unlinked files open.

Pure: `now` is an argument (monotonic seconds), and functions return what must be done instead of
doing it.  service.py asks, events.py delivers.  The promise: whoever may have something cached (or
open) is named, at worst too often; a session is forgotten only when its fence time has passed.

Each session remembers the inodes that it was told about, and an invalidation asks every session.
Sessions are tens or hundreds and inodes are millions, so an index by inode would cost more memory
than it saves time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from dfswire.errors import SessionLost
from dfswire.messages import Invalidated, Invalidation

_FORGOTTEN_WHOLE = Invalidated.DATA | Invalidated.GONE


@dataclass
class Session:
    """What metad knows of one client.

    `held` has every inode that the session was told about; the value says whether it may have
    something of it cached (False: told to forget it, though it may still have it open).
    """

    session: str
    expires_s: float  # the fence time
    synced: bool = True  # False: may have anything cached and open (metad was restarted)
    open_known: bool = True  # False: may have anything open (`held` overflowed)
    held: dict[int, bool] = field(default_factory=dict)

    def may_cache(self, inode: int) -> bool:
        return not self.synced or self.held.get(inode, False)

    def may_have_open(self, inode: int) -> bool:
        return not self.synced or not self.open_known or inode in self.held


class Leases:
    """All sessions, and the orphans (unlinked inodes) that some of them may have open."""

    def __init__(self, fence_s: float, held_inodes_max: int = 1_000_000) -> None:
        self._fence_s = fence_s
        self._held_max = held_inodes_max
        self._sessions: dict[str, Session] = {}
        self._orphans: dict[int, set[str]] = {}

    # sessions

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def __contains__(self, session: str) -> bool:
        return session in self._sessions

    def open(self, session: str, now: float, *, synced: bool = True) -> None:
        """A new session, or with `synced` False one that metad finds in its database at start."""
        self._sessions[session] = Session(session, now + self._fence_s, synced)
        if not synced:
            for openers in self._orphans.values():
                openers.add(session)

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

    def unsynced(self) -> list[str]:
        """Sessions that have not opened their event stream since metad started."""
        return [each.session for each in self if not each.synced]

    def connect(self, session: str, open_inodes: Collection[int]) -> list[int]:
        """The session (re)opened its event stream: it forgot everything but `open_inodes`.

        What it was told about stays in `held` as possibly open, because a reply may be on its way
        to it; returns the orphans that nobody has open now.
        """
        found = self._sessions[session]
        found.held = dict.fromkeys(found.held, False)
        found.held.update(dict.fromkeys(open_inodes, False))
        found.synced = found.open_known = True
        opened = frozenset(open_inodes)
        for inode in opened & self._orphans.keys():
            self._orphans[inode].add(session)
        return self._release_many(session, [i for i in self._orphans if i not in opened])

    def end(self, session: str) -> list[int]:
        """Forget a session; returns the orphans that nobody has open now.  Idempotent."""
        self._sessions.pop(session, None)
        return self._release_many(session, list(self._orphans))

    # what is held

    def hold(self, session: str, inodes: Iterable[int]) -> bool:
        """The session is about to be told of these inodes.

        Returns True when that was more than is remembered per session: then it must be told to
        drop everything (what it was told in this very call stays registered).
        """
        found = self._sessions[session]
        fresh = dict.fromkeys(inodes, True)
        found.held.update(fresh)
        if len(found.held) <= self._held_max:
            return False
        found.held = fresh
        found.open_known = False
        return True

    def invalidate(
        self, invalidations: Iterable[Invalidation], by_session: str
    ) -> dict[str, list[Invalidation]]:
        """Who must be told what, because `by_session` changed something.

        After DATA or GONE a session has nothing of a file cached, and is not told again until it
        asks again.  (ATTR alone may concern a directory whose names stay cached.)
        """
        plan: dict[str, list[Invalidation]] = {}
        for invalidation in invalidations:
            for each in self:
                if each.session != by_session and self._concerns(invalidation, each):
                    plan.setdefault(each.session, []).append(invalidation)
        return plan

    @staticmethod
    def _concerns(invalidation: Invalidation, each: Session) -> bool:
        inode = invalidation.inode
        if invalidation.what & Invalidated.GONE:
            concerned = each.may_have_open(inode)
        else:
            concerned = each.may_cache(inode)
        if concerned and invalidation.what & _FORGOTTEN_WHOLE and inode in each.held:
            each.held[inode] = False
        return concerned

    # orphans

    def orphan(self, inode: int, by_session: str, *, held: bool) -> bool:
        """`inode` lost its last name through `by_session`, which has it open if `held`.

        Returns True when nobody can have it open: purge it now.
        """
        openers = {
            each.session
            for each in self
            if each.session != by_session and each.may_have_open(inode)
        }
        if held:
            openers.add(by_session)
        if openers:
            self._orphans[inode] = openers
        else:
            self._forget(by_session, inode)
        return not openers

    def load_orphan(self, inode: int) -> bool:
        """An orphan found in the database at start: every unsynced session may have it open.

        Returns True when there is no such session: purge it now.
        """
        openers = set(self.unsynced())
        if openers:
            self._orphans[inode] = openers
        return not openers

    def release(self, session: str, inode: int) -> bool:
        """The session has the orphan neither open nor cached.  True when nobody has it open: purge
        it now."""
        if inode not in self._orphans:
            return False
        self._forget(session, inode)
        return bool(self._release_many(session, [inode]))

    def _forget(self, session: str, inode: int) -> None:
        """So that deleted files do not fill up what is remembered."""
        if session in self._sessions:
            self._sessions[session].held.pop(inode, None)

    def _release_many(self, session: str, inodes: Iterable[int]) -> list[int]:
        unused = []
        for inode in inodes:
            openers = self._orphans[inode]
            openers.discard(session)
            if not openers:
                del self._orphans[inode]
                unused.append(inode)
        return unused
