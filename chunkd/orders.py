"""Carrying out what metad orders: copy, delete, verify, rebuild.

Orders come with heartbeat replies and wait in a queue; a few workers carry them out.  A result is
kept and sent with every heartbeat until one succeeds.  metad gives an order again when it hears
nothing for long, so an order that waits or runs is taken once, and doing one twice is harmless.
Orders about the same chunk on the same disk are carried out one after the other, as they came:
metad relies on a verification to come after an older order to delete, and a copy too.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterable
from typing import Literal

import trio

from chunkd.assemble import assemble_chunk
from chunkd.peers import Peers
from chunkd.rebuild import BlocksLost, rebuild_chunk
from chunkd.replicate import copy_chunk
from chunkd.storage import Runner, Store, Stores
from dfswire.client import Client
from dfswire.errors import CorruptChunk, DFSError, NotSupported, UnknownChunk
from dfswire.heartbeats import ReplicaReport
from dfswire.orders import Order, OrderResult

log = logging.getLogger(__name__)

CALLED_OFF = "called off"


class OrderRunner:
    """Queue, workers and results."""

    def __init__(
        self, stores: Stores, client: Client, run: Runner, workers: int, peers: Peers
    ) -> None:
        self._stores = stores
        self._client = client
        self._run = run
        self._workers = workers
        self._peers = peers
        self._send, self._receive = trio.open_memory_channel[Order](math.inf)
        self._unfinished: set[int] = set()
        self._after: dict[tuple[str, bytes], deque[Order]] = {}  # behind one that waits or runs
        self._called_off: set[int] = set()
        self._results: dict[int, OrderResult] = {}
        self._reports: list[ReplicaReport] = []

    def submit(self, orders: Iterable[Order]) -> None:
        """Queue orders that are not queued yet.  metad bounds their number for each disk."""
        for order in orders:
            if order.order_id not in self._unfinished:
                self._unfinished.add(order.order_id)
                behind = self._after.get((order.disk, order.chunk))
                if behind is not None:
                    behind.append(order)
                else:
                    self._after[order.disk, order.chunk] = deque()
                    self._send.send_nowait(order)

    def call_off(self, order_ids: Iterable[int]) -> None:
        """These need not be carried out.  What runs ends as it would; all of them get results."""
        for order_id in order_ids:
            if order_id in self._unfinished:
                self._called_off.add(order_id)
            elif order_id not in self._results:  # its way here was lost, or it was another process
                self._results[order_id] = _called_off(order_id)

    def results(self, limit: int) -> list[OrderResult]:
        """Results that metad has not acknowledged, oldest first."""
        return list(self._results.values())[:limit]

    def acknowledge(self, results: Iterable[OrderResult]) -> None:
        """metad has these."""
        for result in results:
            self._results.pop(result.order_id, None)

    def take_reports(self) -> list[ReplicaReport]:
        """Replicas found missing by a verification, each returned once."""
        reports, self._reports = self._reports, []
        return reports

    async def run_forever(self) -> None:
        """The workers, until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(self._workers):
                nursery.start_soon(self._work)

    async def _work(self) -> None:
        async for order in self._receive.clone():
            if order.order_id in self._called_off:
                result = _called_off(order.order_id)
            else:
                result = await self.execute(order)
            self._results[order.order_id] = result
            self._unfinished.discard(order.order_id)
            self._called_off.discard(order.order_id)
            self._start_next(order.disk, order.chunk)

    def _start_next(self, disk: str, chunk: bytes) -> None:
        behind = self._after[disk, chunk]
        if behind:
            self._send.send_nowait(behind.popleft())
        else:
            del self._after[disk, chunk]

    async def execute(self, order: Order) -> OrderResult:
        """Carry out one order; never raises a DFSError."""
        unreachable: list[str] = []
        try:
            digest = await self._execute(order, unreachable)
        except DFSError as problem:
            log.info("order %d (%s): %s", order.order_id, order.kind, problem)
            return OrderResult(
                order_id=order.order_id,
                ok=False,
                reason=f"{problem.code}: {problem}",
                lost=problem.blocks if isinstance(problem, BlocksLost) and problem.sure else [],
                unreachable=unreachable,
            )
        return OrderResult(order_id=order.order_id, ok=True, digest=digest)

    async def _execute(self, order: Order, unreachable: list[str]) -> bytes:
        """The digest of what was assembled."""
        store = self._stores.on(order.disk)
        if order.kind == "copy":
            await copy_chunk(self._client, store, order, self._run, self._peers, unreachable)
        elif order.kind == "rebuild":
            await rebuild_chunk(self._client, store, order, self._run)
        elif order.kind == "assemble":
            return await assemble_chunk(
                self._client, store, order, self._run, self._peers, unreachable
            )
        elif order.kind == "verify":
            await self._verify(store, order)
        elif order.kind == "delete":
            await self._delete(store, order)
        else:  # of a metad of the next release
            raise NotSupported(f"this chunkd knows no order to {order.kind}")
        return b""

    async def _delete(self, store: Store, order: Order) -> None:
        try:
            await self._run(lambda: store.delete(order.chunk))
        except UnknownChunk:
            log.debug("chunk %s was gone already", order.chunk.hex())

    async def _verify(self, store: Store, order: Order) -> None:
        try:
            await self._run(lambda: store.verify(order.chunk))
            if order.digest and await self._run(lambda: store.digest(order.chunk)) != order.digest:
                reason = "it has other content than metad remembers"
                await self._run(lambda: store.quarantine(order.chunk, reason))
                raise CorruptChunk(reason)
        except UnknownChunk as problem:
            self._report(order, "missing", problem)
            raise
        except CorruptChunk as problem:
            # Perhaps it was set aside long ago, and metad has forgotten or never heard it.
            self._report(order, "bad", problem)
            raise

    def _report(self, order: Order, state: Literal["bad", "missing"], problem: DFSError) -> None:
        self._reports.append(
            ReplicaReport(chunk=order.chunk, disk=order.disk, state=state, reason=str(problem))
        )


def _called_off(order_id: int) -> OrderResult:
    return OrderResult(order_id=order_id, ok=False, reason=CALLED_OFF)
