"""Orders that wait for a heartbeat, or for their result.

Pure.  repair.py and reclaim.py add orders for a disk; servers take them with their heartbeats.  An
order is kept until its result arrives: without one it is given out again, under the same id.
The same (kind, chunk, disk) is never queued twice, and the queue of a disk is bounded.

Ids start at a random number, because a result that was meant for an order of an earlier start of
metad must not be taken for that of another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from dfswire.messages import Replica
from dfswire.orders import Order, OrderResult, Piece

Kind = Literal["copy", "delete", "verify", "rebuild", "assemble"]

QUEUED_PER_DISK_MAX = 10_000  # about 5 MB of memory; what does not fit is found again later
TAKEN_PER_HEARTBEAT_MAX = 500  # per disk; keeps a heartbeat's reply under 100 KB


@dataclass
class _Entry:
    order: Order
    taken_s: float | None = None  # when it was last given out
    given_out: bool = False  # ever, to the present process of its server
    called_off: bool = False  # what comes of it is booked nevertheless

    @property
    def key(self) -> tuple[str, bytes]:
        return self.order.kind, self.order.chunk


class OrderQueue:
    """The orders of all disks."""

    def __init__(self, first_order_id: int, timeout_s: float = 60.0) -> None:
        self._next_id = first_order_id
        self._timeout_s = timeout_s
        self._by_id: dict[int, _Entry] = {}
        self._by_disk: dict[str, dict[tuple[str, bytes], _Entry]] = {}
        self._called_off: dict[int, str] = {}

    def add(
        self,
        kind: Kind,
        chunk: bytes,
        disk: str,
        *,
        length: int = 0,
        digest: bytes = b"",
        sources: Iterable[Replica] = (),
        pieces: Iterable[Piece] = (),
    ) -> bool:
        """Queue an order; False when it is queued already or the disk's queue is full."""
        queue = self._by_disk.setdefault(disk, {})
        if (kind, chunk) in queue or len(queue) >= QUEUED_PER_DISK_MAX:
            return False
        order = Order(
            order_id=self._next_id,
            kind=kind,
            chunk=chunk,
            disk=disk,
            length=length,
            digest=digest,
            sources=list(sources),
            pieces=list(pieces),
        )
        self._next_id += 1
        queue[kind, chunk] = self._by_id[order.order_id] = _Entry(order)
        return True

    def take(self, disks: Iterable[str], now: float) -> list[Order]:
        """What these disks shall do now: orders never given out, or given out too long ago."""
        taken = []
        for disk in disks:
            due = [each for each in self._by_disk.get(disk, {}).values() if self._due(each, now)]
            for entry in due[:TAKEN_PER_HEARTBEAT_MAX]:
                entry.taken_s = now
                entry.given_out = True
                taken.append(entry.order)
        return taken

    def call_off(self, order: Order) -> None:
        """This need not be done any more; one that was given out may have been done already."""
        entry = self._by_id.get(order.order_id)
        if entry is not None and not entry.given_out:
            self._forget(entry)
        elif entry is not None:
            entry.called_off = True
            self._called_off[order.order_id] = order.disk

    def called_off(self, disks: Collection[str]) -> list[int]:
        """What servers with these disks may drop; repeated until they say that it has ended."""
        return [order_id for order_id, disk in self._called_off.items() if disk in disks]

    def find(self, result: OrderResult, disks: Iterable[str]) -> Order | None:
        """The order that this result of a server with these `disks` is about; None if unknown."""
        entry = self._by_id.get(result.order_id)
        return entry.order if entry is not None and entry.order.disk in disks else None

    def finish(self, order: Order) -> bool:
        """The result of the order is booked.  Idempotent.  True: it had been called off."""
        entry = self._by_id.get(order.order_id)
        if entry is not None:
            self._forget(entry)
        return entry is not None and entry.called_off

    def restart(self, disks: Iterable[str]) -> None:
        """The server of these disks was started anew and knows of no orders: give them again."""
        for disk in disks:
            for entry in list(self._by_disk.get(disk, {}).values()):
                entry.taken_s = None
                entry.given_out = False
                if entry.called_off:
                    self._forget(entry)

    def of_kind(self, kind: Kind) -> list[Order]:
        """All of a kind that are queued or under way."""
        return [each.order for each in self._by_id.values() if each.order.kind == kind]

    def copies(self) -> list[Order]:
        """All copies that are queued or under way."""
        return self.of_kind("copy")

    def is_given_out(self, kind: Kind, chunk: bytes, disk: str) -> bool:
        """Has a server been told to do this, and not said yet what came of it?"""
        entry = self._by_disk.get(disk, {}).get((kind, chunk))
        return entry is not None and entry.given_out

    def withdraw(self, kind: Kind, chunk: bytes, disk: str) -> bool:
        """Forget an order that no server has been told of; False when it is too late for that."""
        entry = self._by_disk.get(disk, {}).get((kind, chunk))
        if entry is None or entry.given_out:
            return entry is None
        self._forget(entry)
        return True

    def counts(self) -> Counter[str]:
        """All orders that are queued or under way, by kind."""
        return Counter(each.order.kind for each in self._by_id.values())

    def _due(self, entry: _Entry, now: float) -> bool:
        return not entry.called_off and (
            entry.taken_s is None or now - entry.taken_s >= self._timeout_s
        )

    def _forget(self, entry: _Entry) -> None:
        del self._by_id[entry.order.order_id]
        self._called_off.pop(entry.order.order_id, None)
        del self._by_disk[entry.order.disk][entry.key]
