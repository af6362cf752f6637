"""Telling metad which chunks each disk holds, in pages over the whole id space.

After each registration and every ten minutes.  metad finds out what is missing, and says which ids
it does not know: those are set aside when they are old enough not to be in the middle of being
written, kept for some days, then deleted.  A chunk stored while its page is on the way would look
missing, so each of those is reported as good afterwards.
"""

from __future__ import annotations

import logging

import trio

from chunkd.identity import ServerIdentity
from chunkd.storage import Runner, Store, Stores
from dfswire.client import Client
from dfswire.cluster import INVENTORY_PAGE_CHUNKS, Inventory, InventoryReply, ReplicaReport
from dfswire.errors import DFSError
from dfswire.messages import CHUNK_ID_BYTES

log = logging.getLogger(__name__)

FIRST = bytes(CHUNK_ID_BYTES)
LAST = b"\xff" * CHUNK_ID_BYTES
_RETRY_S = 5.0
_DEADLINE_S = 30.0  # metad compares up to 65,536 ids with its database


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
        self._unknown_min_age_s = unknown_min_age_s
        self._unknown_kept_s = unknown_kept_s
        self._page_chunks = page_chunks
        self._wanted = trio.Event()
        self._hold = False  # metad may have forgotten what it does not know: delete nothing
        self._reports: list[ReplicaReport] = []

    def request(self) -> None:
        """metad has (again) registered this server: send everything soon."""
        self._wanted.set()

    def take_reports(self) -> list[ReplicaReport]:
        """Chunks that a page may have missed, each returned once."""
        reports, self._reports = self._reports, []
        return reports

    async def run_forever(self) -> None:
        """Until cancelled: an inventory when requested and after each interval."""
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
                await self._wanted.wait()

    async def run_once(self, store: Store) -> None:
        """Send all pages of one disk, and set aside what metad does not know."""
        with store.recording() as stored_meanwhile:
            first, self._hold = FIRST, False
            while first:
                first = await self._send_page(store, first, stored_meanwhile)
        if not self._hold:
            await self._run(lambda: store.expire_set_aside(self._unknown_kept_s))

    async def _send_page(self, store: Store, first: bytes, stored_meanwhile: set[bytes]) -> bytes:
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
        )
        reply: InventoryReply = await self._client.call(
            "server.inventory", self._metad, page, deadline_s=_DEADLINE_S
        )
        self._hold = self._hold or reply.hold
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


def _before(chunk: bytes) -> bytes:
    """The id just below; b"" below the first one."""
    number = int.from_bytes(chunk, "big")
    return b"" if number == 0 else (number - 1).to_bytes(CHUNK_ID_BYTES, "big")


def _after(chunk: bytes) -> bytes:
    return (int.from_bytes(chunk, "big") + 1).to_bytes(CHUNK_ID_BYTES, "big")
