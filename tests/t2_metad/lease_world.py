"""What the small world of lease_model.py consists of: clients, calls under way, metad's tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dfswire.messages import Lease
from metad.leases.changes import Change
from metad.leases.table import Leases
from metad.leases.turns import Turn

FENCE_S = 30.0
PARTS = ATTR, DATA = (1, 2)
Step = tuple[Any, ...]


class Wrong(AssertionError):
    """A promise was broken."""


@dataclass
class Limits:
    """How much may happen in one history: what keeps the world small."""

    starts: int = 4  # reads, writes and changes
    flushes: int = 1  # that nobody asked for
    gives: int = 0  # leases given back that nobody asked for
    copies: int = 0  # messages that come twice
    slow: int = 0  # commits during which other things happen
    breaks: int = 0  # streams
    deaths: int = 0  # clients
    restarts: int = 0  # metad


@dataclass
class Own:
    """A lease as its holder knows it."""

    number: int
    versions: dict[int, int]  # of each leased part
    dirty: set[int] = field(default_factory=set)
    recalled: bool = False
    flushing: int = 0  # the commit that is under way; with `closing` it gives the lease back
    closing: bool = False

    unused: int = 0  # parts that metad has granted or speaks of, and that are not used here

    @property
    def parts(self) -> int:
        return sum(self.versions) | self.unused


@dataclass
class Client:
    """One session.  `cache` is what it shares: (inode, part) -> version."""

    name: str
    dead: bool = False
    follows: bool = True
    cache: dict[tuple[int, int], int] = field(default_factory=dict)
    leases: dict[int, Own] = field(default_factory=dict)


@dataclass
class Operation:
    """A call that is under way."""

    number: int
    client: str
    kind: str  # read, take, change, flush, copy (of a take: nobody wants its answer)
    inode: int
    parts: int
    versions: dict[int, int] = field(default_factory=dict)  # to be stored, or read
    floor: dict[int, int] = field(default_factory=dict)  # a reader must see these at least
    give_back: Lease | None = None
    wants_lease: bool = False
    phase: str = "asked"  # foretold, executed, stored, announced, answered; lost
    stale: bool = False  # something was invalidated or recalled since it was asked
    fleeting: bool = False  # of the attributes nothing must be kept
    change: Change = field(default_factory=lambda: Change(""))
    turn: Turn | None = None
    unconfirmed: dict[str, int] = field(default_factory=dict)
    lease: Lease | None = None


class Base:
    """The state of a world, which its halves change."""

    def __init__(
        self,
        limits: Limits,
        *,
        clients: int = 2,
        inodes: int = 1,
        masks: tuple[int, ...] = (3,),
        kind: type[Leases] = Leases,
    ) -> None:
        """`masks`: the parts that an operation may be about.  `kind`: for faults put in by hand."""
        self.left = limits
        self.kind = kind
        self.masks = masks
        self.inodes = range(1, inodes + 1)
        self.clients = {name: Client(name) for name in "abc"[:clients]}
        self.leases = kind(FENCE_S)
        for name in self.clients:
            self.leases.open(name, 0.0)
        self.stored = {(inode, part): 0 for inode in self.inodes for part in PARTS}
        self.floor = dict(self.stored)
        self.applied: set[int] = set()
        self.operations: dict[int, Operation] = {}
        self.unannounced: list[int] = []
        self.slow_commits: set[int] = set()
        self.streams: dict[str, list[Any] | None] = {name: [] for name in self.clients}
        self.acks: dict[str, int] = {}
        self.given: list[tuple[str, Lease]] = []  # messages
        self.follows: dict[str, list[Lease]] = {}
        self.next_version = 1
        self.next_number = 1

    def _ask(self, client: str, kind: str, inode: int, parts: int, **more: Any) -> None:
        floor = {part: self.floor[inode, part] for part in PARTS if part & parts}
        op = Operation(self.next_number, client, kind, inode, parts, floor=floor, **more)
        op.change = Change(client)
        self.operations[op.number] = op
        self.next_number += 1

    def _version(self) -> int:
        self.next_version += 1
        return self.next_version
