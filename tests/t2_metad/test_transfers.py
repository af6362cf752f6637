"""What each disk may have to do at once."""

from __future__ import annotations

from dfswire.messages import Replica
from dfswire.orders import Order
from metad.jobs.rebalance import Move
from metad.operators.moving import BUSY_MAX, that_fit
from metad.upkeep.transfers import SMALL_PER_TRANSFER, RepairLimits, Transfers

LIMITS = RepairLimits(transfers_per_disk=2, whole_bytes=1000)


def move(number: int, source: str, destination: str, length: int = 1000) -> Move:
    return Move(number.to_bytes(16, "big"), length, source, destination)


def how_many_fit(transfers: Transfers, length: int) -> int:
    count = 0
    while transfers.fit(["x"]):
        transfers.occupy(["x"], length)
        count += 1
    return count


def test_small_chunks_share_a_transfer() -> None:
    assert how_many_fit(Transfers(LIMITS), 1000) == 2
    assert how_many_fit(Transfers(LIMITS), 500) == 4
    assert how_many_fit(Transfers(LIMITS), 1) == 2 * SMALL_PER_TRANSFER
    assert how_many_fit(Transfers(LIMITS, 0.5), 1000) == 1


def test_copies_keep_both_ends_busy() -> None:
    sources = [Replica(disk=disk, address="a:1") for disk in ("y", "z")]
    order = Order(order_id=1, kind="copy", chunk=b"c" * 16, disk="x", length=2000, sources=sources)
    transfers = Transfers.of_copies(LIMITS, [order])
    assert [transfers.of(disk) for disk in "xyz"] == [2.0, 2.0, 0.0]
    assert not transfers.fit(["z", "x"])
    assert transfers.fit(["z"])


def test_moves_between_busy_disks_wait() -> None:
    moves = [move(number, "a" if number < 4 else "b", "c", 1000) for number in range(8)]
    assert that_fit(moves, Transfers(LIMITS)) == (moves[:2], False)
    assert that_fit(moves[:2], Transfers(LIMITS)) == (moves[:2], True)
    elsewhere = move(9, "b", "d")
    assert that_fit([*moves[:4], elsewhere], Transfers(LIMITS)) == ([*moves[:2], elsewhere], False)
    many = [move(number, "a", "c") for number in range(2 + BUSY_MAX)]
    assert that_fit([*many, elsewhere], Transfers(LIMITS)) == (many[:2], False)
