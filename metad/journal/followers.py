"""The chunkds that keep copies of the journal, and what waits for them.

Each group commit offers its entry here before its own fsync, so both go on at the same time, and
nobody hears of a change, by its answer or by reading it, before `until_safe` says that it can't be
lost any more: `copies` chunkds have it on disk.  Who lags for longer than `wait_s` is dropped, and
with too few left metad goes on and says so.  A chunkd that knows more than this database does is
the sign of a database that was set back: metad ends instead of serving it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from dfswire.errors import DFSError, SessionLost, Unavailable, UsageError, WrongCluster
from dfswire.journal import AckJournal, Entry, FollowerStatus, FollowJournal, Position
from metad.journal.lineage import ahead_of
from metad.journal.stream import Follower
from metad.journal.window import Window, in_term

log = logging.getLogger(__name__)

SPARES = 2  # chunkds beyond the copies that follow, so that one takes over at once
LAG_ENTRIES = 16  # who is closer than this is in step: it is waited for, which keeps it so


class Followers:
    """See the module's text."""

    def __init__(
        self,
        position: Position,
        cluster_id: str,
        *,
        copies: int,
        wait_s: float,
        sign_of_life_s: float,
        clock: Callable[[], float],
        tell: Callable[[str, str, str], None],
        first_stream: int,
        expected: bool,
    ) -> None:
        self.copies = copies
        self.sign_of_life_s = sign_of_life_s
        self.snapshot = -1  # number of the newest that can be fetched
        self.waits = 0  # of changes and of readers, for copies
        self.wait_seconds = 0.0  # spent in them
        self._cluster_id = cluster_id
        self._wait_s = wait_s
        self._clock = clock
        self._tell = tell
        self._streams = first_stream
        self._window = Window(position)
        self._followers: dict[str, Follower] = {}  # in the order of their coming
        self._safe = position.number
        self._progress = trio.Event()  # something became safe, or nobody needs to wait any more
        self._broken: DFSError | None = None
        self._broke = trio.Event()
        # After a start the chunkds need a moment to come; without any there is nobody to wait for.
        self._awaited_until: float | None = clock() + wait_s if expected else None
        self._reported = 0  # in step, as far as operators were told since the start

    @property
    def offered(self) -> Position:
        """The last entry that was given out."""
        return self._window.offered

    @property
    def offered_bytes(self) -> int:
        """Of all entries since the start."""
        return self._window.offered_bytes

    # -- for the group commit -------------------------------------------------------------------

    def offer(self, entry: Entry) -> None:
        """The entry of a transaction that is about to be committed."""
        self._window.add(entry)
        for follower in list(self._followers.values()):
            if follower.active and follower.sent < self._window.before.number:
                self._drop(follower, "lags too far behind")
            follower.wake()
        self._settle()

    def withdraw(self, entry: Entry, term: int) -> None:
        """Its commit failed: it never was.  What follows has a higher term."""
        self._window.take_back(entry, term)
        self._safe = min(self._safe, self.offered.number)
        for follower in self._followers.values():
            if follower.active:
                follower.rewind(self.offered)

    async def until_safe(self, number: int) -> None:
        """Return when entry `number` is on as many disks as wanted, or as can be had in time.

        Raises Unavailable when this database turned out to be an old one.
        """
        if number <= self._safe and self._broken is None:
            return
        began_s = self._clock()
        self.waits += 1
        try:
            await self._wait_for(number, began_s + self._wait_s)
        finally:
            self.wait_seconds += self._clock() - began_s

    async def _wait_for(self, number: int, deadline: float) -> None:
        while True:
            if self._broken is not None:
                raise Unavailable(f"this metad must not go on: {self._broken}")
            if number <= self._safe:
                return
            with trio.move_on_after(max(0.0, deadline - self._clock())) as waiting:
                await self._progress.wait()
            if waiting.cancelled_caught:
                self._give_up(number)

    def _give_up(self, number: int) -> None:
        if self._awaited_until is not None:
            log.info("no %d chunkds keep the journal: going on without", self.copies)
            self._awaited_until = None
        for follower in list(self._followers.values()):
            if follower.in_step and follower.number < number:
                self._drop(follower, f"did not confirm entry {number} within {self._wait_s:g} s")
        self._settle()

    # -- calls ----------------------------------------------------------------------------------

    async def follow(self, request: FollowJournal) -> Follower:
        """Raises WrongCluster; UsageError for a chunkd that knows more than this metad may."""
        if request.cluster_id != self._cluster_id:
            raise WrongCluster(f"this metad keeps cluster {self._cluster_id}")
        if (problem := ahead_of(self.offered, request.position, request.previous)) is not None:
            self._broken = UsageError(f"server {request.server_id} {problem}")
            log.error("this database is not the newest: %s", self._broken)
            self._broke.set()
            self._announce()
            raise self._broken
        older = self._followers.get(request.server_id)
        if older is not None:
            self._remove(older)
        follower = Follower(self, request)
        self._followers[request.server_id] = follower
        self._promote()
        return follower

    def dismiss(self, server_id: str) -> None:
        """Its copy counts no longer, from the next entry on: it is being removed."""
        if (follower := self._followers.get(server_id)) is not None:
            log.info("server %s is removed: it does not keep the journal any more", server_id)
            self._remove(follower)
            self._settle()

    async def acknowledge(self, request: AckJournal) -> None:
        """Raises SessionLost when that connection is over."""
        follower = self._followers.get(request.server_id)
        if follower is None or follower.stream != request.stream or not follower.active:
            raise SessionLost("this stream of the journal has ended")
        follower.number = max(follower.number, min(request.number, follower.sent))
        if not follower.in_step and self.offered.number - follower.number <= LAG_ENTRIES:
            follower.in_step = True
            log.info(
                "server %s keeps the journal, in step at %d", request.server_id, request.number
            )
        self._settle()

    async def until_broken(self) -> None:
        """Raises UsageError when this metad must end: its database is not the newest."""
        await self._broke.wait()
        assert self._broken is not None
        raise self._broken

    def status(self) -> list[FollowerStatus]:
        """Who follows."""
        return [
            FollowerStatus(
                server_id=server,
                state="standby"
                if not each.active
                else "in step"
                if each.in_step
                else "catching up",
                number=each.number,
            )
            for server, each in self._followers.items()
        ]

    @property
    def safe(self) -> int:
        """What nobody has to wait for."""
        return self._safe

    @property
    def in_step(self) -> int:
        """How many copies there are."""
        return self._in_step()

    def announce_snapshot(self, number: int) -> None:
        """A snapshot up to entry `number` can be fetched."""
        self.snapshot = number
        for follower in self._followers.values():
            follower.wake()

    # -- of streams -----------------------------------------------------------------------------

    def next_stream(self) -> int:
        """A number that no stream had before, by which late acknowledgements are told."""
        self._streams += 1
        return self._streams

    def start_of(self, request: FollowJournal) -> Position:
        """From where a follower that has `request.position` is to go on."""
        mine = self._window.at(request.position.number)
        if mine is not None and mine.digest == request.position.digest:
            # Whoever has more than was committed when this metad started must hear so: its term.
            return mine if mine.term == request.position.term else in_term(mine, self.offered.term)
        before = self._window.at(request.position.number - 1)
        if before is not None and before.digest == request.previous:
            return in_term(before, self.offered.term)
        both = mine is not None and before is not None
        if both and request.position.epoch == self.offered.epoch:
            problem = f"has another history: entry {request.position.number} is not ours"
            log.error("server %s %s; it starts anew", request.server_id, problem)
            self._tell("journal.diverged", request.server_id, problem)
        return self.offered

    def after(self, number: int) -> list[bytes]:
        """Encoded entries after `number`, about as much as fits a frame; at least one."""
        return self._window.after(number)

    def disconnected(self, follower: Follower) -> None:
        """The connection is gone."""
        if self._followers.get(follower.server_id) is follower:
            if follower.in_step:
                log.info("server %s does not follow the journal any more", follower.server_id)
            self._remove(follower)
            self._settle()

    # -- inside ---------------------------------------------------------------------------------

    def _promote(self) -> None:
        room = self.copies + SPARES - sum(each.active for each in self._followers.values())
        for follower in self._followers.values():
            if room > 0 and not follower.active:
                follower.activate()
                room -= 1

    def _drop(self, follower: Follower, reason: str) -> None:
        log.warning("server %s is not waited for any more: it %s", follower.server_id, reason)
        self._remove(follower)

    def _remove(self, follower: Follower) -> None:
        follower.close()
        del self._followers[follower.server_id]
        self._promote()

    def _in_step(self) -> int:
        return sum(each.in_step for each in self._followers.values())

    def _settle(self) -> None:
        """Find what is safe now."""
        confirmed = sorted(
            (each.number for each in self._followers.values() if each.in_step), reverse=True
        )
        wanted = min(self.copies, len(confirmed))
        awaited = self._awaited_until is not None and self._clock() < self._awaited_until
        if wanted < self.copies and awaited:
            return
        safe = confirmed[wanted - 1] if wanted else self.offered.number
        self._report(len(confirmed))
        if safe > self._safe:
            self._safe = safe
            self._announce()

    def _announce(self) -> None:
        self._progress.set()
        self._progress = trio.Event()

    def _report(self, in_step: int) -> None:
        in_step = min(in_step, self.copies)
        if in_step == self._reported:
            return
        kind = "journal.copies_lost" if in_step < self._reported else "journal.copies_regained"
        self._reported = in_step
        self._tell(kind, self._cluster_id, f"{in_step} of {self.copies} copies of the journal")
