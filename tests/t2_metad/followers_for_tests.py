"""What metad gives out of its journal and chunkds that keep it, for tests of the followers.

`Copies` is the metad: a Followers, entries that are made for it, and what operators were told.
`Keeper` is a chunkd: it takes frames as chunkd/follower.py does and asserts that they go on from
what it has.  Nothing passes by itself: tests say when who receives, and when it acknowledges.
"""

from __future__ import annotations

import msgspec
import trio

from dfswire import codec
from dfswire.journal import (
    DIGEST_BYTES,
    NOWHERE,
    AckJournal,
    Entry,
    FollowJournal,
    JournalFrame,
    Position,
    seal,
)
from metad.journal.followers import Followers
from metad.journal.lineage import Node

CLUSTER = "c" * 32
WAIT_S = 1.0
SIGN_OF_LIFE_S = 5.0
TERM = 1 << 32
START = msgspec.structs.replace(NOWHERE, epoch=1, term=TERM)


def after(position: Position, *, term: int = 0, body: bytes = b"x") -> Entry:
    """An entry that goes on from there."""
    return seal(position, term or position.term, position.time_ns + 1, body)


def history(position: Position, count: int, *, term: int = 0, body: bytes = b"x") -> list[Entry]:
    """Several."""
    found: list[Entry] = []
    for _ in range(count):
        found.append(after(found[-1].position if found else position, term=term, body=body))
    return found


class Copies:
    """See the module's text.  Needs trio's clock."""

    def __init__(
        self, copies: int = 1, *, expected: bool = False, position: Position = START
    ) -> None:
        self.told: list[tuple[str, str]] = []
        self.term = position.term
        self.followers = Followers(
            position,
            CLUSTER,
            copies=copies,
            wait_s=WAIT_S,
            sign_of_life_s=SIGN_OF_LIFE_S,
            clock=trio.current_time,
            tell=lambda kind, _cluster, message: self.told.append((kind, message)),
            first_stream=100,
            expected=expected,
        )

    def offer(self, body: bytes = b"x") -> Entry:
        """A commit is about to happen."""
        entry = after(self.followers.offered, term=self.term, body=body)
        self.followers.offer(entry)
        return entry

    def withdraw(self, entry: Entry) -> None:
        """And did not."""
        self.term += 1
        self.followers.withdraw(entry, self.term)

    async def waited_s(self, number: int) -> float:
        """How long somebody waits for entry `number`."""
        began_s = trio.current_time()
        await self.followers.until_safe(number)
        return trio.current_time() - began_s

    def states(self) -> dict[str, str]:
        """Of the chunkds."""
        return {each.server_id: each.state for each in self.followers.status()}


class Keeper:
    """See the module's text.  `runs`: the places from which it was told to go on, with what came
    after each; what is on its disk for a restore."""

    def __init__(self, copies: Copies, server_id: str) -> None:
        self.copies = copies
        self.server_id = server_id
        self.position = NOWHERE
        self.previous = bytes(DIGEST_BYTES)
        self.is_complete = False  # a snapshot is here, from which the entries go on
        self.runs: list[tuple[Position, list[Entry]]] = []
        self._parts = b""

    def request(self) -> FollowJournal:
        return FollowJournal(
            server_id=self.server_id,
            incarnation=1,
            cluster_id=CLUSTER,
            position=self.position,
            previous=self.previous,
        )

    async def connect(self) -> Keeper:
        self.stream = await self.copies.followers.follow(self.request())
        return self

    async def in_step(self) -> Keeper:
        """Connected, and with all there is."""
        await self.connect()
        await self.keep()
        return self

    async def receive(self) -> JournalFrame:
        """The next frame, written to the disk.  Raises StopAsyncIteration."""
        frame = await anext(self.stream)
        self._number = frame.stream
        if frame.base is not None:
            self._begin(frame.base)
        entries = [codec.decode(Entry, data) for data in frame.entries]
        if frame.part:
            self._parts += frame.part
            if frame.is_last:
                entries.append(codec.decode(Entry, self._parts))
                self._parts = b""
        for entry in entries:
            assert entry.is_sound
            assert (entry.previous, entry.number) == (
                self.position.digest,
                self.position.number + 1,
            )
            self.runs[-1][1].append(entry)
            self.position, self.previous = entry.position, entry.previous
        return frame

    def _begin(self, base: Position) -> None:
        connected = base.digest in (self.position.digest, self.previous)
        if not connected or base.epoch != self.position.epoch:
            self.is_complete = False
        self._parts = b""
        self.runs.append((base, []))
        self.position, self.previous = base, bytes(DIGEST_BYTES)

    async def acknowledge(self, number: int | None = None, stream: int | None = None) -> None:
        """By default what is on its disk.  Raises SessionLost."""
        request = AckJournal(
            server_id=self.server_id,
            stream=self._number if stream is None else stream,
            number=self.position.number if number is None else number,
        )
        await self.copies.followers.acknowledge(request)

    async def keep(self) -> None:
        """Receive and acknowledge whatever there is."""
        await self.receive()
        while self.position.number < self.copies.followers.offered.number:
            await self.receive()
        self.is_complete = True  # it fetches a snapshot when it needs one
        await self.acknowledge()

    async def leave(self) -> None:
        """The connection breaks."""
        await self.stream.aclose()

    def nodes(self) -> list[tuple[Position, list[Node]]]:
        """As a restore puts them into a Lineage."""
        return [
            (base, [Node(each.position, each.previous, self.server_id) for each in entries])
            for base, entries in self.runs
        ]
