"""Emptying the quarantine: damaged copies go when they are old and nothing depends on them.

Each disk's oldest ones are offered to metad, which knows whether there are enough good copies, or
no file that needs them.  What metad does not name stays, however old and however much it is.
"""

from __future__ import annotations

import logging

import trio

from chunkd.storage import Runner, Store, Stores
from dfswire.client import Client
from dfswire.errors import DFSError
from dfswire.verify import Settled, SettledReply

log = logging.getLogger(__name__)

CHUNKS_PER_CALL_MAX = 1000


class Emptier:
    """Goes through all disks of this server, at intervals."""

    def __init__(
        self,
        stores: Stores,
        client: Client,
        run: Runner,
        metad: str,
        server_id: str,
        incarnation: int,
        *,
        interval_s: float,
        kept_s: float,
        share: float,
    ) -> None:
        self._stores = stores
        self._client = client
        self._run = run
        self._metad = metad
        self._server_id = server_id
        self._incarnation = incarnation
        self._interval_s = interval_s
        self._kept_s = kept_s
        self._share = share

    async def run_forever(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(self._interval_s)
            for store in self._stores:
                try:
                    await self.run_once(store)
                except DFSError as problem:
                    log.info("quarantine of disk %s not emptied: %s", store.disk, problem)

    async def run_once(self, store: Store) -> int:
        """Delete what may go; how many files.  Raises DFSError."""
        figures = await self._run(store.figures)
        max_bytes = int(figures.total_bytes * self._share)
        due = await self._run(
            lambda: store.quarantine_due(self._kept_s, max_bytes, CHUNKS_PER_CALL_MAX)
        )
        if not due:
            return 0
        reply: SettledReply = await self._client.call(
            "server.settled",
            self._metad,
            Settled(
                server_id=self._server_id,
                incarnation=self._incarnation,
                disk=store.disk,
                chunks=due,
            ),
        )
        settled = [chunk for chunk in reply.chunks if chunk in set(due)]
        count = await self._run(lambda: store.empty_quarantine(settled))
        if count:
            log.info("disk %s: %d damaged copies deleted", store.disk, count)
        return count
