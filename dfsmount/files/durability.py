"""Which committed chunks are not known to be on disk yet, and how fsync makes sure of it.

Chunks of background uploads are in the memory of their servers, which sync them within seconds.
fsync waits for that here: every such chunk of the inode must be durable on min(R, 2) servers.  When
too few servers can say so, it asks metad where the chunk is now, asks those servers, and waits for
repair rather than give up at once; metad is told of replicas that can't be made durable.  Of a
range that was copied within metad only the place is noted: the copy takes no time, and fsync asks
which chunks are there.  Records outlive writers, for fsync may come through another descriptor
later; a background pass forgets them when the servers have synced.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import trio

from dfsmount.ports import Metadata
from dfsmount.remote.chunkclient import ChunkClient, Stored
from dfswire.errors import DFSError, InputOutput, NoData, NoEntry
from dfswire.messages import ChunkLocation, Replica
from dfswire.metadata import SEEK_DATA, LayoutReply

WAIT_MAX_S = (
    90.0  # a server is down after 10 s, repair starts 30 s later and copies this chunk soon
)
PAUSE_S = 1.0
PASS_EVERY_S = 10.0  # servers sync every 5 s
ASK_AGAIN_AFTER_S = 60.0
WINDOW_BYTES = 64 << 20  # of a copied range, asked about at once


@dataclass(eq=False)
class _Unsynced:
    """A chunk in [offset, end) of a file that was stored without being synced."""

    chunk: bytes
    offset: int
    end: int
    replicas: list[Replica]
    needed: int  # servers
    since_s: float
    durable: set[str] = field(default_factory=set)  # disks that have it for certain
    refused: set[str] = field(default_factory=set)  # disks that lost it: not asked again


class _Copied(NamedTuple):
    """[offset, end) of a file became that of another one."""

    offset: int
    end: int
    since_s: float


class Durability:
    """All unsynced chunks of this client.  `needed` is min(R, 2), where metad says nothing else."""

    def __init__(self, metadata: Metadata, chunks: ChunkClient, *, needed: int) -> None:
        self._metadata = metadata
        self._chunks = chunks
        self._needed = needed
        self._unsynced: defaultdict[int, dict[bytes, _Unsynced]] = defaultdict(dict)
        self._copied: defaultdict[int, list[_Copied]] = defaultdict(list)
        self._noted = trio.Event()

    def note(self, inode: int, stored: Stored, offset: int, end: int) -> None:
        """A chunk was committed to [offset, end) of an inode without having been synced."""
        self._note(inode, stored.location, offset, end)
        self._noted.set()

    def note_copied(self, inode: int, offset: int, end: int) -> None:
        """[offset, end) of an inode shares chunks of another file, whoever wrote them, and whether
        or not they were ever synced."""
        copied = self._copied[inode]
        if copied and copied[-1].end == offset:
            offset = copied.pop().offset
        copied.append(_Copied(offset, end, trio.current_time()))
        self._noted.set()

    def count(self) -> int:
        """How many chunks (and copied ranges) are not known to be durable."""
        noted = (*self._unsynced.values(), *self._copied.values())
        return sum(len(entries) for entries in noted)

    async def settle(self, inode: int) -> None:
        """Return when everything noted for the inode is durable.  Raises InputOutput."""
        give_up_at = trio.current_time() + WAIT_MAX_S
        await self._find_copied(inode)
        wanted = list(self._unsynced.get(inode, {}).values())
        for entry in wanted:
            entry.refused.clear()  # since then there may be another copy
        while wanted := [entry for entry in wanted if self._is_open(inode, entry)]:
            await self._sync({inode: wanted})
            wanted = [entry for entry in wanted if self._is_open(inode, entry)]
            if not wanted:
                return
            asked_at = trio.current_time()
            await self._ask_again(inode, wanted)
            # That waits for metad, as long as the mount allows: no server has failed meanwhile.
            give_up_at += trio.current_time() - asked_at
            if not any(self._is_open(inode, entry) for entry in wanted):
                return
            if trio.current_time() >= give_up_at:
                raise InputOutput(f"{len(wanted)} chunks are not on enough disks")
            await trio.sleep(PAUSE_S)

    async def run(self) -> None:
        """Forget, in the background, what the servers have synced.  Ends by cancellation."""
        while True:
            if not (self._unsynced or self._copied):
                self._noted = trio.Event()
                await self._noted.wait()
            await trio.sleep(PASS_EVERY_S)
            await self._pass()

    async def _pass(self) -> None:
        ripe_before = trio.current_time() - PASS_EVERY_S
        try:
            for inode, copied in list(self._copied.items()):
                if copied[-1].since_s <= ripe_before:
                    await self._find_copied(inode)
        except DFSError:
            return  # metad is away; the next pass asks it
        unproved = await self._sync(
            {
                inode: [entry for entry in entries.values() if entry.since_s <= ripe_before]
                for inode, entries in self._unsynced.items()
            }
        )
        stale_before = trio.current_time() - ASK_AGAIN_AFTER_S
        for inode, entries in list(self._unsynced.items()):
            stale = [
                entry
                for entry in entries.values()
                if entry.since_s <= stale_before or entry in unproved
            ]
            try:
                await self._ask_again(inode, stale)
            except DFSError:
                return  # metad is away; the next pass asks it

    async def _find_copied(self, inode: int) -> None:
        """Note every chunk in the copied ranges of an inode.

        A range is remembered until that is done, for another fsync may come meanwhile; one that
        was noted or prolonged meanwhile stays.
        """
        for copied in list(self._copied.get(inode, ())):
            with suppress(NoEntry):
                await self._find_chunks(inode, copied)
            left = [each for each in self._copied.get(inode, ()) if each is not copied]
            if left:
                self._copied[inode] = left
            else:
                self._copied.pop(inode, None)

    async def _find_chunks(self, inode: int, copied: _Copied) -> None:
        start = copied.offset
        while start < copied.end:
            try:
                start = await self._metadata.seek(inode, start, SEEK_DATA)
            except NoData:
                return
            end = min(start + WINDOW_BYTES, copied.end)
            if start < end:
                self._note_all(inode, await self._metadata.layout(inode, start, end - start))
            start = end

    def _note_all(self, inode: int, reply: LayoutReply) -> None:
        locations = {each.chunk: each for each in reply.chunks}
        for extent in reply.extents:
            if extent.chunk:
                end = extent.offset + extent.length
                self._note(inode, locations[extent.chunk], extent.offset, end)

    def _note(self, inode: int, location: ChunkLocation, offset: int, end: int) -> None:
        """The chunk is in [offset, end) of an inode, perhaps in other places of it too."""
        known = self._unsynced[inode].get(location.chunk)
        if known is not None:
            known.offset, known.end = min(known.offset, offset), max(known.end, end)
            return
        self._unsynced[inode][location.chunk] = _Unsynced(
            chunk=location.chunk,
            offset=offset,
            end=end,
            replicas=list(location.replicas),
            needed=location.needed or self._needed,
            since_s=trio.current_time(),
        )

    def _is_open(self, inode: int, entry: _Unsynced) -> bool:
        return self._unsynced.get(inode, {}).get(entry.chunk) is entry

    def _close(self, inode: int, entry: _Unsynced) -> None:
        if self._is_open(inode, entry):
            del self._unsynced[inode][entry.chunk]
            if not self._unsynced[inode]:
                del self._unsynced[inode]

    async def _sync(self, wanted: dict[int, list[_Unsynced]]) -> set[_Unsynced]:
        """Ask the servers once, and close what is durable on enough of them; returns those for
        which a server wants another token, which metad has."""
        unproved: set[_Unsynced] = set()
        by_address: defaultdict[str, list[tuple[bytes, bytes]]] = defaultdict(list)
        for entry in _all(wanted):
            for replica in entry.replicas:
                if replica.disk not in entry.durable | entry.refused:
                    by_address[replica.address].append((entry.chunk, replica.token))
        answers = await self._chunks.sync(by_address)
        for inode, entries in wanted.items():
            for entry in entries:
                for replica in entry.replicas:
                    asked = replica.address, entry.chunk
                    if asked not in answers:
                        continue
                    if answers[asked] is None:
                        unproved.add(entry)
                    elif answers[asked]:
                        entry.durable.add(replica.disk)
                    else:  # its server never had it or has set it aside
                        entry.refused.add(replica.disk)
                        self._chunks.report(entry.chunk, replica, "it cannot be made durable")
                self._close_if_durable(inode, entry)
        return unproved

    async def _ask_again(self, inode: int, entries: Iterable[_Unsynced]) -> None:
        """Learn from metad which replicas there are now, and whether the file needs the chunk."""
        for entry in entries:
            try:
                reply = await self._metadata.layout(inode, entry.offset, entry.end - entry.offset)
            except NoEntry:
                self._close(inode, entry)
                continue
            location = next((one for one in reply.chunks if one.chunk == entry.chunk), None)
            if location is None:
                self._close(inode, entry)  # overwritten or truncated since
                continue
            entry.replicas = list(location.replicas)
            entry.needed = location.needed or self._needed  # its policy may have changed
            # Where metad has stopped to believe in a replica, one that it names later is another.
            named = {replica.disk for replica in entry.replicas}
            entry.durable &= named
            entry.refused &= named

    def _close_if_durable(self, inode: int, entry: _Unsynced) -> None:
        if len(entry.durable) >= entry.needed:
            self._close(inode, entry)


def _all(wanted: dict[int, list[_Unsynced]]) -> Iterable[_Unsynced]:
    return (entry for entries in wanted.values() for entry in entries)
