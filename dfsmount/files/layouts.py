"""What this client knows, under its lease, of where the bytes of each file are.

The reader asks here; metad is asked only for what is unknown, and then generously.  The writer adds
what it has committed.  The rule that keeps it true: an answer that was requested before an
invalidation, a truncation or a commit of the same inode is good for the one who asked, but is not
kept; and while this client is not told of changes, nothing that it has kept is believed.  Where
servers want tokens nothing is known for longer than those in it are surely good.  Memory is bounded
by a number of inodes; the least recently used are forgotten.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import trio

from dfsmount.files.extents import Range, RangeMap
from dfsmount.ports import Metadata
from dfswire.messages import FILE_MAX_BYTES, ChunkLocation, Extent
from dfswire.metadata import LayoutReply

LAYOUTS_MAX = 4096  # inodes
OWN_GOOD_FOR_S = 30.0  # tokens for one's own new chunks: those of grants are good for a minute more
WINDOW_BYTES = 64 << 20  # 16 chunks in sequence: one question per 64 MiB of streaming
Source = ChunkLocation | bytes
"""Where the bytes of a range are: in a chunk (at the range's value offset), or these very bytes."""


@dataclass(eq=False, frozen=True)
class Good:
    """For how long something is known; one object for what was learned together."""

    until_s: float


FOR_EVER = Good(math.inf)


class Knowledge:
    """What is known of one inode.  Also the ticket of a commit under way, see `Layouts.ticket`."""

    def __init__(self) -> None:
        self.version = 0  # counts what makes answers under way stale
        self._sources: RangeMap[Source] = RangeMap()
        self._known: RangeMap[Good] = RangeMap()
        self.needs_tokens = False
        self.asking: dict[tuple[int, int, int], trio.Event] = {}

    def gaps(self, offset: int, length: int) -> list[Range[Good | None]]:
        """The parts of a range of which nothing is known (any more)."""
        now_s = trio.current_time() if self.needs_tokens else 0.0
        return [
            piece
            for piece in self._known.pieces(offset, length)
            if piece.value is None or piece.value.until_s <= now_s
        ]

    def pieces(self, offset: int, length: int) -> list[Range[Source | None]]:
        """A known range in order; None is a hole."""
        return self._sources.pieces(offset, length)

    def lay(self, piece: Range[Source], good: Good) -> None:
        self._sources.lay(*piece)
        self._known.lay(piece.offset, piece.length, good, piece.offset)

    def learn(self, offset: int, end: int, sources: Iterable[Range[Source]], good: Good) -> None:
        """`sources` are all there is in [offset, end); they may stick out of it."""
        self.needs_tokens |= good is not FOR_EVER
        self._sources.cut(offset, end)
        self._known.lay(offset, end - offset, good, offset)
        for source in sources:
            self.lay(source, good)

    def forget(self, offset: int, end: int) -> None:
        self._sources.cut(offset, end)
        self._known.cut(offset, end)


class Layouts:
    """The extents of many files.  `valid()` says whether the lease holds at this moment."""

    def __init__(
        self,
        metadata: Metadata,
        *,
        inodes_max: int = LAYOUTS_MAX,
        valid: Callable[[], bool] = lambda: True,
    ) -> None:
        self._metadata = metadata
        self._valid = valid
        self._inodes_max = inodes_max
        self._inodes: OrderedDict[int, Knowledge] = OrderedDict()

    def known_slices(self, inode: int, offset: int, length: int) -> list[Range[Source | None]]:
        """Like `slices` without asking; an empty list when metad would have to be asked."""
        knowledge = self._inodes.get(inode)
        if knowledge is None or not self._valid() or knowledge.gaps(offset, length):
            return []
        self._inodes.move_to_end(inode)
        return knowledge.pieces(offset, length)

    async def slices(self, inode: int, offset: int, length: int) -> list[Range[Source | None]]:
        """The pieces of a range in order; the value is None for a hole.

        Raises what `Metadata.layout` raises.
        """
        while True:
            knowledge = self.ticket(inode)
            if self._valid() and not knowledge.gaps(offset, length):
                return knowledge.pieces(offset, length)
            found = await self._ask(inode, knowledge, offset, offset + length)
            if found is not None:
                return found.pieces(offset, length)

    def ticket(self, inode: int) -> Knowledge:
        """To be taken before a commit is sent and handed to `apply_commit` after it."""
        knowledge = self._inodes.get(inode)
        if knowledge is None:
            knowledge = self._inodes[inode] = Knowledge()
            while len(self._inodes) > self._inodes_max:
                self._inodes.popitem(last=False)
        else:
            self._inodes.move_to_end(inode)
        return knowledge

    def apply_commit(
        self,
        inode: int,
        ticket: Knowledge,
        extents: Iterable[Extent],
        locations: Mapping[bytes, ChunkLocation],
    ) -> None:
        """Own extents are part of the file now.

        If the inode was invalidated since the ticket was taken, nobody here knows whether another
        client's extents lie over or under ours, so everything about the inode is forgotten.
        """
        if self._inodes.get(inode) is not ticket:
            self.invalidate(inode)
            return
        ticket.version += 1
        needs_tokens = any(each.token for one in locations.values() for each in one.replicas)
        good = Good(trio.current_time() + OWN_GOOD_FOR_S) if needs_tokens else FOR_EVER
        ticket.needs_tokens |= needs_tokens
        for extent in extents:
            source: Source = locations[extent.chunk] if extent.chunk else extent.data
            ticket.lay(Range(extent.offset, extent.length, source, extent.chunk_offset), good)

    def truncate(self, inode: int, size: int) -> None:
        """The file was given this size; what lies behind it is asked for again when needed."""
        self.cut(inode, size, FILE_MAX_BYTES)

    def cut(self, inode: int, offset: int, end: int) -> None:
        """metad has changed this range; it is asked for again when needed."""
        if (knowledge := self._inodes.get(inode)) is not None:
            knowledge.version += 1
            knowledge.forget(offset, end)

    def invalidate(self, inode: int) -> None:
        """Forget everything about an inode; answers on their way will not be kept."""
        self._inodes.pop(inode, None)

    def clear(self) -> None:
        """Forget everything."""
        self._inodes.clear()

    async def _ask(
        self, inode: int, knowledge: Knowledge, offset: int, end: int
    ) -> Knowledge | None:
        """Ask metad for a window around [offset, end), or wait for a task that asks the same.

        The answer as a Knowledge of its own when it may not be kept; None when it was, or when
        another task asked.
        """
        start = offset - offset % WINDOW_BYTES
        end = min(FILE_MAX_BYTES, end + -end % WINDOW_BYTES)
        version = knowledge.version
        if (asked := knowledge.asking.get((start, end, version))) is not None:
            await asked.wait()
            return None
        asked = knowledge.asking[start, end, version] = trio.Event()
        try:
            reply = await self._metadata.layout(inode, start, end - start)
        finally:
            del knowledge.asking[start, end, version]
            asked.set()
        same = self._inodes.get(inode) is knowledge and knowledge.version == version
        kept = same and self._valid()
        target = knowledge if kept else Knowledge()
        target.learn(start, end, _sources(reply), _good(reply))
        return None if kept else target


def _good(reply: LayoutReply) -> Good:
    """By our clock: the tokens were made while the answer was on its way, which is less long."""
    return Good(trio.current_time() + reply.good_for_s / 2) if reply.good_for_s else FOR_EVER


def _sources(reply: LayoutReply) -> list[Range[Source]]:
    locations = {location.chunk: location for location in reply.chunks}
    return [
        Range(
            extent.offset,
            extent.length,
            locations[extent.chunk] if extent.chunk else extent.data,
            extent.chunk_offset,
        )
        for extent in reply.extents
    ]
