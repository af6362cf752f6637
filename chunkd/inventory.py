"""Telling metad which chunks each disk holds, in pages over the whole id space.

After each registration and every ten minutes; in between, every half minute, only what has changed
since metad confirmed the last one: a directory that was not touched is not read again.  metad finds
out what is missing, and says which ids it does not know: those are set aside when they are old
enough not to be in the middle of being written, kept for some days, then deleted.  A chunk stored
while its page is on the way would look missing, so each of those is reported as good afterwards.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from chunkd.identity import ServerIdentity
from chunkd.layout import UNSURE, Leaf
from chunkd.storage import Runner, Store, Stores
from dfswire.client import Client
from dfswire.errors import DFSError
from dfswire.heartbeats import ReplicaReport
from dfswire.inventories import (
    INVENTORY_PAGE_CHUNKS,
    ChangesReply,
    Inventory,
    InventoryChanges,
    InventoryReply,
)
from dfswire.messages import CHUNK_ID_BYTES

log = logging.getLogger(__name__)

FIRST = bytes(CHUNK_ID_BYTES)
LAST = b"\xff" * CHUNK_ID_BYTES
_RETRY_S = 5.0
_DEADLINE_S = 30.0  # metad compares up to 65,536 ids with its database
_EMPTY = Leaf(UNSURE, b"")


@dataclass
class _Confirmed:
    """What metad has heard of a disk, and the number that it knows that by."""

    number: int
    leaves: dict[bytes, Leaf]


class InventorySender:
    """Sends the inventories of all disks of this server."""

    def __init__(
        self,
        stores: Stores,
        client: Client,
        run: Runner,
        metad: str,
        identity: ServerIdentity,
        *,
        interval_s: float,
        changes_s: float,
        unknown_min_age_s: float,
        unknown_kept_s: float,
        page_chunks: int = INVENTORY_PAGE_CHUNKS,
    ) -> None:
        self._stores = stores
        self._client = client
        self._run = run
        self._metad = metad
        self._identity = identity
        self._interval_s = interval_s
        self._changes_s = changes_s
        self._unknown_min_age_s = unknown_min_age_s
        self._unknown_kept_s = unknown_kept_s
        self._page_chunks = page_chunks
        self._wanted = trio.Event()
        self._hold = False  # metad may have forgotten what it does not know: delete nothing
        self._reports: list[ReplicaReport] = []
        self._numbers: Counter[str] = Counter()  # by disk: the last inventory or changes
        self._confirmed: dict[str, _Confirmed] = {}

    def request(self) -> None:
        """metad has (again) registered this server: send everything soon."""
        self._wanted.set()

    def take_reports(self) -> list[ReplicaReport]:
        """Chunks that a page may have missed, each returned once."""
        reports, self._reports = self._reports, []
        return reports

    async def run_forever(self) -> None:
        """Until cancelled: an inventory when requested and after each interval, changes between."""
        await self._wanted.wait()
        while True:
            self._wanted = trio.Event()
            pause_s = self._interval_s
            for store in self._stores:
                try:
                    await self.run_once(store)
                except DFSError as problem:
                    log.info("inventory of disk %s not sent, again soon: %s", store.disk, problem)
                    pause_s = _RETRY_S
            with trio.move_on_after(pause_s):
                await self._send_changes_until_wanted()

    async def _send_changes_until_wanted(self) -> None:
        while not self._wanted.is_set():
            with trio.move_on_after(self._changes_s):
                await self._wanted.wait()
                return
            for store in self._stores:
                try:
                    if not await self.send_changes(store):
                        self._wanted.set()
                except DFSError as problem:
                    log.info("changes of disk %s not sent, again soon: %s", store.disk, problem)

    async def run_once(self, store: Store) -> None:
        """Send all pages of one disk, and set aside what metad does not know."""
        number = self._numbers[store.disk] = self._numbers[store.disk] + 1
        self._confirmed.pop(store.disk, None)
        leaves: dict[bytes, Leaf] = {}
        with store.recording() as stored_meanwhile:
            first, self._hold = FIRST, False
            while first:
                first = await self._send_page(store, first, number, stored_meanwhile, leaves)
        self._confirmed[store.disk] = _Confirmed(number, leaves)
        if not self._hold:
            await self._run(lambda: store.expire_set_aside(self._unknown_kept_s))

    async def send_changes(self, store: Store) -> bool:
        """Send what is not there any more, and what is new; False: a whole inventory is wanted."""
        confirmed = self._confirmed.get(store.disk)
        if confirmed is None:
            return False
        leaves = await self._run(lambda: store.leaves(confirmed.leaves))
        gone, new = _differences(confirmed.leaves, leaves)
        if len(gone) + len(new) > self._page_chunks * CHUNK_ID_BYTES:
            return False
        if gone or new:
            changes = InventoryChanges(
                server_id=self._identity.server_id,
                incarnation=self._identity.incarnation,
                disk=store.disk,
                after=confirmed.number,
                gone=gone,
                new=new,
            )
            reply: ChangesReply = await self._client.call(
                "server.changes", self._metad, changes, deadline_s=_DEADLINE_S
            )
            if reply.whole:
                return False
            for chunk in reply.unknown:
                await self._set_aside(store, chunk)
            confirmed.number = self._numbers[store.disk] = confirmed.number + 1
        confirmed.leaves = leaves
        return True

    async def _send_page(
        self,
        store: Store,
        first: bytes,
        number: int,
        stored_meanwhile: set[bytes],
        leaves: dict[bytes, Leaf],
    ) -> bytes:
        """Send the page that begins with `first`; the beginning of the next, b"" after the end."""
        after = _before(first)
        chunks = await self._run(lambda: store.list_chunks(after, self._page_chunks))
        last = chunks[-1] if len(chunks) == self._page_chunks else LAST
        page = Inventory(
            server_id=self._identity.server_id,
            incarnation=self._identity.incarnation,
            disk=store.disk,
            first=first,
            last=last,
            chunks=b"".join(chunks),
            number=number,
        )
        reply: InventoryReply = await self._client.call(
            "server.inventory", self._metad, page, deadline_s=_DEADLINE_S
        )
        self._hold = self._hold or reply.hold
        for prefix, ids in itertools.groupby(chunks, lambda chunk: chunk[:2]):
            before = leaves.get(prefix, _EMPTY).chunks
            leaves[prefix] = Leaf(UNSURE, before + b"".join(ids))
        listed = set(chunks)
        self._reports += [
            ReplicaReport(chunk=chunk, disk=store.disk, state="good")
            for chunk in sorted(stored_meanwhile - listed)
            if first <= chunk <= last
        ]
        for chunk in reply.unknown:
            await self._set_aside(store, chunk)
        return b"" if last == LAST else _after(last)

    async def _set_aside(self, store: Store, chunk: bytes) -> None:
        if await self._run(lambda: store.set_aside(chunk, self._unknown_min_age_s)):
            log.warning("chunk %s on disk %s is unknown to metad", chunk.hex(), store.disk)


def _differences(before: Mapping[bytes, Leaf], now: Mapping[bytes, Leaf]) -> tuple[bytes, bytes]:
    """Ids that are not there any more, and ids that are new, each sorted and concatenated."""
    gone: list[bytes] = []
    new: list[bytes] = []
    for prefix in sorted(before.keys() | now.keys()):
        old, present = before.get(prefix, _EMPTY).chunks, now.get(prefix, _EMPTY).chunks
        if old != present:
            earlier, later = _ids(old), _ids(present)
            gone += sorted(earlier - later)
            new += sorted(later - earlier)
    return b"".join(gone), b"".join(new)


def _ids(packed: bytes) -> set[bytes]:
    return {packed[at : at + CHUNK_ID_BYTES] for at in range(0, len(packed), CHUNK_ID_BYTES)}


def _before(chunk: bytes) -> bytes:
    """The id just below; b"" below the first one."""
    number = int.from_bytes(chunk, "big")
    return b"" if number == 0 else (number - 1).to_bytes(CHUNK_ID_BYTES, "big")


def _after(chunk: bytes) -> bytes:
    return (int.from_bytes(chunk, "big") + 1).to_bytes(CHUNK_ID_BYTES, "big")
