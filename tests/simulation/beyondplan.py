"""What a seed of the mode `beyond` stands for; beyond.py carries it out.

Pure data, as schedule.py has it for the other mode, with which no seed is shared.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.simulation.cluster import BLOCK_BYTES, Shape
from tests.simulation.spoiling import FATES

INVENTORY_S = (5.0, 12.0)
SCRUB_S = (6.0, 15.0)
TROUBLES = ("kill_chunkd", "kill_chunkd", "kill_metad", "cut_power")
TROUBLES_S = 20.0  # all begin within this time after the damage
FILE_BLOCKS_MAX = 8
FILES_MAX = 6


@dataclass(frozen=True)
class Write:
    """Bytes of a file, fsynced; `dice` seeds them."""

    offset: int
    length: int
    dice: int

    @property
    def data(self) -> bytes:
        return random.Random(self.dice).randbytes(self.length)


@dataclass(frozen=True)
class File:
    """`restored`: its owner writes what is lost anew from a backup; else it is just removed."""

    name: bytes
    writes: tuple[Write, ...]
    second_name: bool
    restored: bool


@dataclass(frozen=True)
class Trouble:
    """What else happens while the damage is being found."""

    at_s: float
    kind: str
    target: int
    for_s: float

    def __str__(self) -> str:
        return f"{self.at_s:.2f} s after the damage  {self.kind} {self.target} for {self.for_s} s"


@dataclass(frozen=True)
class Plan:
    """All of it."""

    seed: int
    shape: Shape
    files: tuple[File, ...]
    fates: dict[str, int]  # how often each is drawn
    wiped: tuple[int, ...]  # machines that get an empty disk
    removed: int | None  # a machine that is lost for good, and removed by an operator
    read_after_s: float  # whoever notices first: a reader, or a scrub
    troubles: tuple[Trouble, ...]

    @property
    def lost_disks(self) -> set[int]:
        return {*self.wiped} | ({self.removed} if self.removed is not None else set())


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    rng = random.Random(f"beyond plan {seed}")
    servers, replicas = rng.choice([(3, 2), (3, 2), (4, 2), (3, 3), (4, 3), (5, 3)])
    shape = Shape(
        servers=servers,
        replicas=replicas,
        clients=1,
        inventory_s=rng.choice(INVENTORY_S),
        scrub_s=rng.choice(SCRUB_S),
        chunk_blocks=rng.choice([1, 2, 4, 4, 8]),
    )
    lost = rng.sample(range(servers), replicas - 1) if rng.random() < 0.4 else []
    is_removed = bool(lost) and servers > replicas and rng.random() < 0.5
    kinds = rng.sample(list(FATES), rng.randrange(2, len(FATES) + 1))
    return Plan(
        seed=seed,
        shape=shape,
        files=tuple(_file(rng, number) for number in range(rng.randrange(2, FILES_MAX + 1))),
        fates={kind: FATES[kind] for kind in kinds},
        wiped=tuple(lost[1:] if is_removed else lost),
        removed=lost[0] if is_removed else None,
        read_after_s=rng.choice([0.0, 0.0, 1.0, 25.0]),
        troubles=tuple(_trouble(rng, servers) for _ in range(rng.choice([0, 0, 1, 2, 3]))),
    )


def _file(rng: random.Random, number: int) -> File:
    size = rng.choice([900, 5000, BLOCK_BYTES, rng.randrange(1, FILE_BLOCKS_MAX * BLOCK_BYTES)])
    writes = [Write(0, size, rng.getrandbits(32))]
    for _ in range(rng.choice([0, 0, 1, 2])):  # over parts of it, or behind a hole
        offset = rng.choice([rng.randrange(size), size + rng.randrange(2 * BLOCK_BYTES)])
        offset = rng.choice([offset, offset // BLOCK_BYTES * BLOCK_BYTES])
        length = rng.choice([3000, BLOCK_BYTES, rng.randrange(2000, 3 * BLOCK_BYTES)])
        writes.append(Write(offset, length, rng.getrandbits(32)))
    return File(
        name=b"f%d" % number,
        writes=tuple(writes),
        second_name=rng.random() < 0.3,
        restored=rng.random() < 0.4,
    )


def _trouble(rng: random.Random, servers: int) -> Trouble:
    return Trouble(
        at_s=round(rng.uniform(0.0, TROUBLES_S), 2),
        kind=rng.choice(TROUBLES),
        target=rng.randrange(servers),
        for_s=rng.choice([0.2, 2.0, 7.0, 12.0]),
    )
