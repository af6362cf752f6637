"""When two small worlds of lease_model.py are equal, so that their histories go on as one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from dfswire.messages import Lease
from tests.t2_metad.lease_world import (
    Base,
    Operation,
)


def key(world: Base) -> tuple[Any, ...]:
    """Equal for two worlds in which the same can happen: of numbers only their order counts."""
    ops = [world.operations[number] for number in sorted(world.operations)]
    place = {op.number: index for index, op in enumerate(ops)}
    version = _ranks(_versions(world, ops))
    lease = _ranks(each.number for each in _leases(world, ops))
    told = _ranks(_announcements(world, ops))

    def short(each: Lease | None) -> tuple[int, ...] | None:
        return (each.inode, each.parts, lease[each.number]) if each is not None else None

    def event(each: tuple[Any, ...]) -> tuple[Any, ...]:
        if each[0] == "recall":
            return "recall", short(each[1])
        if each[0] == "tell":
            return "tell", told[each[1]], tuple((i.inode, i.what) for i in each[2])
        return each

    turns = _ranks(op.turn.number for op in ops if op.turn is not None)
    exclusives = world.leases._exclusives._of_inode
    return (
        tuple(vars(world.left).values()),
        tuple(
            (
                client.dead,
                client.follows,
                tuple(sorted((*item, version[at]) for item, at in client.cache.items())),
                tuple(
                    (
                        inode,
                        lease[own.number],
                        tuple(sorted((p, version[v]) for p, v in own.versions.items())),
                        tuple(sorted(own.dirty)),
                        own.recalled,
                        place.get(own.flushing, -1),
                        own.closing,
                        own.unused,
                    )
                    for inode, own in sorted(client.leases.items())
                ),
            )
            for client in world.clients.values()
        ),
        tuple(
            (
                op.client,
                op.kind,
                op.inode,
                op.parts,
                tuple(sorted((p, version[v]) for p, v in op.versions.items())),
                tuple(sorted((p, version[v]) for p, v in op.floor.items())),
                short(op.give_back),
                op.wants_lease,
                op.phase,
                op.stale,
                op.fleeting,
                tuple(sorted(op.change.inodes)),
                tuple(
                    sorted(
                        (name, at[0], what)
                        for name, tells in op.change.told.items()
                        for at, what in tells.items()
                    )
                ),
                turns[op.turn.number] if op.turn else -1,
                tuple(sorted((name, told[at]) for name, at in op.unconfirmed.items())),
                short(op.lease),
                op.number in world.applied,
            )
            for op in ops
        ),
        tuple(version[at] for at in world.stored.values()),
        tuple(version[at] for at in world.floor.values()),
        tuple(place[number] for number in world.unannounced),
        tuple(sorted(place.get(number, -1) for number in world.slow_commits)),
        tuple(
            None if stream is None else tuple(event(each) for each in stream)
            for stream in world.streams.values()
        ),
        tuple(sorted((name, told[at]) for name, at in world.acks.items())),
        tuple(sorted((name, short(each)) for name, each in world.given)),
        tuple(sorted((name, tuple(map(short, each))) for name, each in world.follows.items())),
        tuple(
            (
                each.session,
                each.synced,
                tuple(sorted(each.held.items())),
                tuple((i, parts, told[at]) for i, (parts, at) in each.telling.items()),
            )
            for each in world.leases
        ),
        tuple(
            (inode, name, each.parts, lease[each.number], each.recalled)
            for inode in sorted(exclusives)
            for name, each in sorted(exclusives[inode].items())
        ),
    )


def _versions(world: Base, ops: list[Operation]) -> Iterator[int]:
    yield from world.stored.values()
    yield from world.floor.values()
    for client in world.clients.values():
        yield from client.cache.values()
        for own in client.leases.values():
            yield from own.versions.values()
    for op in ops:
        yield from op.versions.values()
        yield from op.floor.values()


def _leases(world: Base, ops: list[Operation]) -> Iterator[Any]:
    for held in world.leases._exclusives._of_inode.values():
        yield from held.values()
    for client in world.clients.values():
        yield from client.leases.values()
    for _name, lease in world.given:
        yield lease
    for used in world.follows.values():
        yield from used
    for stream in world.streams.values():
        yield from (each[1] for each in stream or () if each[0] == "recall")
    for op in ops:
        yield from (each for each in (op.lease, op.give_back) if each is not None)


def _announcements(world: Base, ops: list[Operation]) -> Iterator[int]:
    for session in world.leases:
        yield from (number for _parts, number in session.telling.values())
    for stream in world.streams.values():
        yield from (each[1] for each in stream or () if each[0] == "tell")
    yield from world.acks.values()
    for op in ops:
        yield from op.unconfirmed.values()


def _ranks(numbers: Iterable[int]) -> dict[int, int]:
    return {number: rank for rank, number in enumerate(sorted(set(numbers)))}
