"""What disks hold: whole inventories, and every half minute what has changed since.

Handlers of server.inventory and server.changes.  A disk is believed about what it has not, except
about chunks that came while it counted; what it has beyond our rows is verified before it counts.
Comparing is done off the loop (bench/chunks.py: a page, 65,536 ids, 0.4 s), so what it finds is
looked at again when it is booked.

Changes make sense only to a metad that has heard everything before them: it remembers the number of
the last inventory or changes of each disk, and asks for a whole inventory when that is another one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from dfswire.inventories import ChangesReply, Inventory, InventoryChanges, InventoryReply
from dfswire.messages import CHUNK_ID_BYTES
from metad.copies import contents, replicas
from metad.copies.contents import InventoryDiff
from metad.copies.recent import RecentChunks
from metad.recovery.fence import reclaim_held
from metad.state import State
from metad.storage.database import Database

log = logging.getLogger(__name__)

RECENT_S = 60.0  # an inventory page is never older than this when it arrives
_LAST = b"\xff" * CHUNK_ID_BYTES


class Inventories:
    """See the module's text.  `wake` tells repair that replicas turned out to be missing."""

    def __init__(self, state: State, wake: Callable[[], None]) -> None:
        self._state = state
        self._wake = wake
        self._recent = RecentChunks(RECENT_S, state.clock())
        self._heard: dict[str, tuple[int, int]] = {}  # disk -> (incarnation, number)
        self._wanted: set[str] = set()

    def came(self, chunks: Iterable[bytes]) -> None:
        """These became part of a file, or of a disk, just now."""
        self._recent.add(chunks, self._state.clock())

    def want(self, servers: Iterable[str]) -> None:
        """Have these servers send whole inventories."""
        self._wanted.update(servers)

    def take_wanted(self, server_id: str) -> bool:
        """Shall this server send whole inventories?  Once."""
        wanted = server_id in self._wanted
        self._wanted.discard(server_id)
        return wanted

    # -- calls ----------------------------------------------------------------------------------

    async def inventory(self, request: Inventory) -> InventoryReply:
        """A page of a whole inventory."""
        if not self._is_its_disk(request):
            return InventoryReply(hold=True)
        ids = _ids(request.chunks)
        diff = await self._state.db.read_in_thread(
            lambda db: contents.page_diff(db, request.disk, request.first, request.last, ids)
        )
        await self._take(request.disk, diff)
        if request.last == _LAST:
            self._heard[request.disk] = (request.incarnation, request.number)
        return InventoryReply(unknown=diff.unknown, hold=bool(reclaim_held(self._state.db)))

    async def changes(self, request: InventoryChanges) -> ChangesReply:
        """What has changed since the last inventory or changes; also a repetition of that."""
        if not self._is_its_disk(request):
            return ChangesReply(hold=True)
        known = ((request.incarnation, request.after), (request.incarnation, request.after + 1))
        if self._heard.get(request.disk) not in known:
            return ChangesReply(whole=True)
        gone, new = _ids(request.gone), _ids(request.new)

        def compare(db: Database) -> InventoryDiff:
            return contents.changes_diff(db, request.disk, gone, new)

        diff = await self._state.db.read_in_thread(compare)
        await self._take(request.disk, diff)
        self._heard[request.disk] = (request.incarnation, request.after + 1)
        return ChangesReply(unknown=diff.unknown, hold=bool(reclaim_held(self._state.db)))

    def _is_its_disk(self, request: Inventory | InventoryChanges) -> bool:
        server = self._state.servers.get(request.server_id)
        return (
            server is not None
            and server.incarnation == request.incarnation
            and request.disk in server.disks
        )

    async def _take(self, disk: str, diff: InventoryDiff) -> None:
        state = self._state
        for chunk in [*diff.missing, *diff.returned]:
            state.servers.orders.add("verify", chunk, disk)
        now = state.clock()
        missing = [chunk for chunk in diff.missing if not self._recent(chunk, now)]
        if not missing:
            return
        log.warning("disk %s lacks %d chunks that it should have", disk, len(missing))
        await state.db.write(lambda: self._mark_bad(missing, disk))
        for chunk in missing:
            state.event_log.add("chunk.missing", chunk.hex(), f"disk {disk} lacks it")
        self._wake()

    def _mark_bad(self, chunks: list[bytes], disk: str) -> None:
        """In a mutation: those that are still believed to be good."""
        for chunk in chunks:
            if dict(replicas.replicas_of(self._state.db, chunk)).get(disk) == replicas.GOOD:
                replicas.set_replica(self._state.db, chunk, disk, replicas.BAD)


def _ids(packed: bytes) -> set[bytes]:
    return {packed[at : at + CHUNK_ID_BYTES] for at in range(0, len(packed), CHUNK_ID_BYTES)}
