"""Makes chunks durable that were written without fsync, at least every few seconds.

What a client closes without fsync is on disk on every replica's server after this interval; an
fsync asks for it at once (`chunk.sync`).  One Syncer serves all disks, side by side.
"""

from __future__ import annotations

import trio

from chunkd.storage import Runner, Store, Stores


class Syncer:
    """Runs as a task of the service."""

    def __init__(self, stores: Stores, run: Runner, interval_s: float) -> None:
        self._stores = stores
        self._run = run
        self._interval_s = interval_s
        self._woken = trio.Event()

    def wake(self) -> None:
        """Much has piled up: do not wait for the end of the interval."""
        self._woken.set()

    async def run_once(self) -> int:
        """Sync everything pending on all disks; how many chunks were lost by a failed fsync.

        A store reports those itself.  Slow disks do not hold up the others.
        """
        lost: list[bytes] = []

        async def sync(store: Store) -> None:
            pending = store.unsynced()
            if pending:
                lost.extend((await self._run(lambda: store.sync(pending))).failed)

        async with trio.open_nursery() as nursery:
            for store in self._stores:
                nursery.start_soon(sync, store)
        return len(lost)

    async def run_forever(self) -> None:
        """Until cancelled.  The interval counts from start to start."""
        while True:
            self._woken = trio.Event()
            next_s = trio.current_time() + self._interval_s
            await self.run_once()
            with trio.move_on_at(next_s):
                await self._woken.wait()
