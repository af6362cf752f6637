"""Which committed chunks are not known to be on disk yet, and how fsync makes sure of it.

Chunks of background uploads are in the memory of their servers, which sync them within seconds.
fsync waits for that here: every such chunk of the inode must be durable on min(R, 2) servers.  When
too few servers can say so, it asks metad where the chunk is now, asks those servers, and waits for
repair rather than give up at once; metad is told of replicas that can't be made durable.  Records
outlive writers, for fsync may come through another descriptor later; a background pass forgets them
when the servers have synced.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import trio

from dfsmount.chunkclient import ChunkClient, Stored
from dfsmount.ports import Metadata
from dfswire.errors import DFSError, InputOutput, NoEntry
from dfswire.messages import Replica

WAIT_MAX_S = (
    90.0  # a server is down after 10 s, repair starts 30 s later and copies this chunk soon
)
PAUSE_S = 1.0
PASS_EVERY_S = 10.0  # servers sync every 5 s
ASK_AGAIN_AFTER_S = 60.0


@dataclass(eq=False)
class _Unsynced:
    """A chunk in [offset, end) of a file that was stored without being synced."""

    chunk: bytes
    offset: int
    end: int
    replicas: list[Replica]
    since_s: float
    durable: set[str] = field(default_factory=set)  # disks that have it for certain
    refused: set[str] = field(default_factory=set)  # disks that lost it: not asked again


class Durability:
    """All unsynced chunks of this client.  `needed` is min(R, 2)."""

    def __init__(self, metadata: Metadata, chunks: ChunkClient, *, needed: int) -> None:
        self._metadata = metadata
        self._chunks = chunks
        self._needed = needed
        self._unsynced: defaultdict[int, dict[bytes, _Unsynced]] = defaultdict(dict)
        self._noted = trio.Event()

    def note(self, inode: int, stored: Stored, offset: int, end: int) -> None:
        """A chunk was committed to [offset, end) of an inode without having been synced."""
        self._unsynced[inode][stored.location.chunk] = _Unsynced(
            chunk=stored.location.chunk,
            offset=offset,
            end=end,
            replicas=list(stored.location.replicas),
            since_s=trio.current_time(),
        )
        self._noted.set()

    def count(self) -> int:
        """How many chunks are not known to be durable."""
        return sum(len(entries) for entries in self._unsynced.values())

    async def settle(self, inode: int) -> None:
        """Return when everything noted for the inode is durable.  Raises InputOutput."""
        give_up_at = trio.current_time() + WAIT_MAX_S
        wanted = list(self._unsynced.get(inode, {}).values())
        for entry in wanted:
            entry.refused.clear()  # since then there may be another copy
        while wanted := [entry for entry in wanted if self._is_open(inode, entry)]:
            await self._sync({inode: wanted})
            wanted = [entry for entry in wanted if self._is_open(inode, entry)]
            if not wanted:
                return
            await self._ask_again(inode, wanted)
            if not any(self._is_open(inode, entry) for entry in wanted):
                return
            if trio.current_time() >= give_up_at:
                raise InputOutput(f"{len(wanted)} chunks are not on enough disks")
            await trio.sleep(PAUSE_S)

    async def run(self) -> None:
        """Forget, in the background, what the servers have synced.  Ends by cancellation."""
        while True:
            if not self._unsynced:
                self._noted = trio.Event()
                await self._noted.wait()
            await trio.sleep(PASS_EVERY_S)
            await self._pass()

    async def _pass(self) -> None:
        ripe_before = trio.current_time() - PASS_EVERY_S
        await self._sync(
            {
                inode: [entry for entry in entries.values() if entry.since_s <= ripe_before]
                for inode, entries in self._unsynced.items()
            }
        )
        stale_before = trio.current_time() - ASK_AGAIN_AFTER_S
        for inode, entries in list(self._unsynced.items()):
            stale = [entry for entry in entries.values() if entry.since_s <= stale_before]
            try:
                await self._ask_again(inode, stale)
            except DFSError:
                return  # metad is away; the next pass asks it

    def _is_open(self, inode: int, entry: _Unsynced) -> bool:
        return self._unsynced.get(inode, {}).get(entry.chunk) is entry

    def _close(self, inode: int, entry: _Unsynced) -> None:
        if self._is_open(inode, entry):
            del self._unsynced[inode][entry.chunk]
            if not self._unsynced[inode]:
                del self._unsynced[inode]

    async def _sync(self, wanted: dict[int, list[_Unsynced]]) -> None:
        """Ask the servers once, and close what is durable on enough of them."""
        by_address: defaultdict[str, list[bytes]] = defaultdict(list)
        for entry in _all(wanted):
            for replica in entry.replicas:
                if replica.disk not in entry.durable | entry.refused:
                    by_address[replica.address].append(entry.chunk)
        answers = await self._chunks.sync(by_address)
        for inode, entries in wanted.items():
            for entry in entries:
                for replica in entry.replicas:
                    answer = answers.get((replica.address, entry.chunk))
                    if answer:
                        entry.durable.add(replica.disk)
                    elif answer is False:  # its server never had it or has set it aside
                        entry.refused.add(replica.disk)
                        self._chunks.report(entry.chunk, replica, "it cannot be made durable")
                self._close_if_durable(inode, entry)

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
            # Where metad has stopped to believe in a replica, one that it names later is another.
            named = {replica.disk for replica in entry.replicas}
            entry.durable &= named
            entry.refused &= named

    def _close_if_durable(self, inode: int, entry: _Unsynced) -> None:
        if len(entry.durable) >= self._needed:
            self._close(inode, entry)


def _all(wanted: dict[int, list[_Unsynced]]) -> Iterable[_Unsynced]:
    return (entry for entries in wanted.values() for entry in entries)
