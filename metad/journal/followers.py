"""The chunkds that keep copies of the journal, and what waits for them.

Each group commit offers its entry here before its own fsync, so both go on at the same time, and
nobody hears of a change, by its answer or by reading it, before `until_safe` says that it can't be
lost any more: `copies` chunkds have it on disk.  Who lags for longer than `wait_s` is dropped, and
with too few left metad goes on and says so.  A chunkd that knows more than this database does is
the sign of a database that was set back: metad ends instead of serving it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

import trio

from dfswire import codec
from dfswire.errors import DFSError, SessionLost, Unavailable, UsageError, WrongCluster
from dfswire.journal import (
    ENTRIES_BYTES,
    AckJournal,
    Entry,
    FollowerStatus,
    FollowJournal,
    JournalFrame,
    Position,
)

log = logging.getLogger(__name__)

SPARES = 2  # chunkds beyond the copies that follow, so that one takes over at once
KEPT_BYTES = 64 << 20  # of entries in memory, for followers that were away for a moment
LAG_ENTRIES = 16  # who is closer than this is in step: it is waited for, which keeps it so


class Followers:
    """See the module's text.  `offered` is the last entry that was given out."""

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
        self.offered = position
        self.sign_of_life_s = sign_of_life_s
        self.offered_bytes = 0  # of all entries since the start
        self.snapshot = -1  # number of the newest that can be fetched
        self._cluster_id = cluster_id
        self._wait_s = wait_s
        self._clock = clock
        self._tell = tell
        self._streams = first_stream
        self._before = position  # what the first kept entry follows
        self._kept: deque[tuple[Entry, bytes]] = deque()
        self._kept_bytes = 0
        self._followers: dict[str, Follower] = {}  # in the order of their coming
        self._safe = position.number
        self._progress = trio.Event()  # something became safe, or nobody needs to wait any more
        self._broken: DFSError | None = None
        self._broke = trio.Event()
        # After a start the chunkds need a moment to come; without any there is nobody to wait for.
        self._awaited_until: float | None = clock() + wait_s if expected else None
        self._reported = 0  # in step, as far as operators were told since the start

    # -- for the group commit -------------------------------------------------------------------

    def offer(self, entry: Entry) -> None:
        """The entry of a transaction that is about to be committed."""
        data = codec.encode(entry)
        self._kept.append((entry, data))
        self._kept_bytes += len(data)
        self.offered_bytes += len(data)
        self.offered = entry.position
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            dropped, octets = self._kept.popleft()
            self._before = dropped.position
            self._kept_bytes -= len(octets)
        for follower in list(self._followers.values()):
            if follower.active and follower.sent < self._before.number:
                self._drop(follower, "lags too far behind")
            follower.wake()
        self._settle()

    def withdraw(self, entry: Entry, term: int) -> None:
        """Its commit failed: it never was.  What follows has a higher term."""
        if self._kept and self._kept[-1][0] is entry:
            self._kept_bytes -= len(self._kept.pop()[1])
        before = self._kept[-1][0].position if self._kept else self._before
        self.offered = _in_term(before, term)
        self._safe = min(self._safe, before.number)
        for follower in self._followers.values():
            if follower.active:
                follower.rewind(self.offered)

    async def until_safe(self, number: int) -> None:
        """Return when entry `number` is on as many disks as wanted, or as can be had in time.

        Raises Unavailable when this database turned out to be an old one.
        """
        if number <= self._safe and self._broken is None:
            return
        deadline = self._clock() + self._wait_s
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
        if (problem := self._is_ahead(request.position, request.previous)) is not None:
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
        mine = self._at(request.position.number)
        if mine is not None and mine.digest == request.position.digest:
            # Whoever has more than was committed when this metad started must hear so: its term.
            return mine if mine.term == request.position.term else _in_term(mine, self.offered.term)
        before = self._at(request.position.number - 1)
        if before is not None and before.digest == request.previous:
            return _in_term(before, self.offered.term)
        both = mine is not None and before is not None
        if both and request.position.epoch == self.offered.epoch:
            problem = f"has another history: entry {request.position.number} is not ours"
            log.error("server %s %s; it starts anew", request.server_id, problem)
            self._tell("journal.diverged", request.server_id, problem)
        return self.offered

    def after(self, number: int) -> list[bytes]:
        """Encoded entries after `number`, about as much as fits a frame; at least one."""
        found: list[bytes] = []
        size = 0
        first = number - self._before.number
        for index in range(first, len(self._kept)):
            data = self._kept[index][1]
            if found and size + len(data) > ENTRIES_BYTES:
                break
            found.append(data)
            size += len(data)
        return found

    def disconnected(self, follower: Follower) -> None:
        """The connection is gone."""
        if self._followers.get(follower.server_id) is follower:
            if follower.in_step:
                log.info("server %s does not follow the journal any more", follower.server_id)
            self._remove(follower)
            self._settle()

    # -- inside ---------------------------------------------------------------------------------

    def _is_ahead(self, theirs: Position, previous: bytes) -> str | None:
        ours = self.offered
        if theirs.epoch > ours.epoch:
            return (
                f"has the journal of epoch {theirs.epoch}, this database is of epoch {ours.epoch}: "
                "the cluster was restored elsewhere, and this metad must not run"
            )
        if theirs.epoch < ours.epoch or theirs.number <= ours.number:
            return None
        if theirs.number == ours.number + 1 and previous == ours.digest:
            return None  # was given out, never committed, never acknowledged
        return (
            f"has entry {theirs.number} of the journal, this database ends with {ours.number}: "
            "it is an old copy; use 'dfs metad restore'"
        )

    def _at(self, number: int) -> Position | None:
        """Our position `number`, if it is still known."""
        if number == self._before.number:
            return self._before
        index = number - self._before.number - 1
        return self._kept[index][0].position if 0 <= index < len(self._kept) else None

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


class Follower:
    """One open stream: an iterator of frames."""

    def __init__(self, followers: Followers, request: FollowJournal) -> None:
        self.server_id = request.server_id
        self.stream = followers.next_stream()
        self.active = False
        self.in_step = False
        self.sent = 0
        self.number = 0  # on its disk
        self._request = request
        self._followers = followers
        self._base: Position | None = None
        self._rest: memoryview | None = None  # of an entry that is too large for one frame
        self._snapshot = request.snapshot
        self._changed = trio.Event()
        self._closed = False

    def activate(self) -> None:
        """It is needed."""
        self.active = True
        self.rewind(self._followers.start_of(self._request))

    def rewind(self, base: Position) -> None:
        """What it has after `base` does not count."""
        self.stream = self._followers.next_stream()
        self._base = base
        self._rest = None
        self.sent = base.number
        self.number = min(self.number, base.number)
        self.wake()

    def wake(self) -> None:
        self._changed.set()

    def close(self) -> None:
        """End the iteration."""
        self._closed = True
        self.in_step = self.active = False
        self.wake()

    def __aiter__(self) -> Follower:
        return self

    async def __anext__(self) -> JournalFrame:
        if not self._has_news:
            with trio.move_on_after(self._followers.sign_of_life_s):
                while not self._has_news:
                    self._changed = trio.Event()
                    await self._changed.wait()
        if self._closed:
            raise StopAsyncIteration
        return self._take()

    async def aclose(self) -> None:
        """The connection is gone."""
        self._followers.disconnected(self)
        self.close()

    @property
    def _has_news(self) -> bool:
        if self._closed:
            return True
        return self.active and (
            self._base is not None
            or self._rest is not None
            or self.sent < self._followers.offered.number
            or self._snapshot < self._followers.snapshot
        )

    def _take(self) -> JournalFrame:
        if not self.active:
            return JournalFrame(stream=self.stream)
        base, self._base = self._base, None
        if self._snapshot < self._followers.snapshot:
            self._snapshot = self._followers.snapshot
        if self._rest is None and (entries := self._followers.after(self.sent)):
            if len(entries[0]) <= ENTRIES_BYTES:
                self.sent += len(entries)
                return JournalFrame(
                    stream=self.stream, base=base, entries=entries, snapshot=self._snapshot
                )
            self._rest = memoryview(entries[0])
        part, is_last = self._next_part()
        return JournalFrame(
            stream=self.stream, base=base, part=part, is_last=is_last, snapshot=self._snapshot
        )

    def _next_part(self) -> tuple[bytes, bool]:
        if self._rest is None:
            return b"", False
        part, self._rest = bytes(self._rest[:ENTRIES_BYTES]), self._rest[ENTRIES_BYTES:]
        if self._rest:
            return part, False
        self._rest = None
        self.sent += 1
        return part, True


def _in_term(position: Position, term: int) -> Position:
    """The same place, as metad names it in a later term."""
    return Position(
        epoch=position.epoch,
        term=max(term, position.term),
        number=position.number,
        time_ns=position.time_ns,
        digest=position.digest,
    )
