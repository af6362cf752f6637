"""What chunkds tell metad about themselves, what metad orders them to do, and what operators are
shown.

metad calls nobody: orders ride on heartbeat replies.  Figures come from psutil; sizes are bytes,
times are seconds unless a name says otherwise.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from dfswire.health import Experiences, RepairStatus
from dfswire.jobs import JobStatus
from dfswire.messages import (
    CHUNK_ID_BYTES,
    Attr,
    ChunkId,
    Message,
    Natural,
    Replica,
)
from dfswire.observe import Traffic
from dfswire.verify import LostRange

INVENTORY_PAGE_CHUNKS = 65_536

Admin = Literal["enabled", "draining", "drained", "removed"]
"""What an operator wants of a server or disk; copies on one that is not enabled are readable, but
are not counted on."""


class Hello(Message, frozen=True, kw_only=True):
    """Who answers at this address.  Needs no session; the first call to any unknown address."""

    service: str
    protocol: int
    software: str
    cluster_id: str
    server_id: str = ""


class NetworkAddress(Message, frozen=True, kw_only=True):
    """One interface of a host."""

    interface: str
    ip: list[str] = []
    mac: str = ""


class HostFigures(Message, frozen=True, kw_only=True):
    """psutil's view of a host, taken at a heartbeat."""

    hostname: str = ""
    cpu_count: int = 0
    cpu_percent: float = 0.0
    load_1m: float = 0.0
    memory_total_bytes: int = 0
    memory_available_bytes: int = 0
    network_sent_bytes: int = 0  # since boot, as are the next three
    network_received_bytes: int = 0
    disk_read_bytes: int = 0
    disk_written_bytes: int = 0
    addresses: list[NetworkAddress] = []


class DiskFigures(Message, frozen=True, kw_only=True):
    """One data directory: its identity, capacity, contents and traffic since the daemon started.

    `filesystem` is the same for directories that share their capacity; empty when unknown.
    """

    disk: str
    path: str
    total_bytes: Natural
    free_bytes: Natural
    chunks: Natural
    used_bytes: Natural  # by chunks
    read_bytes: Natural = 0
    written_bytes: Natural = 0
    reads: Natural = 0
    writes: Natural = 0
    scrub_fraction: float = 0.0  # how far the present pass is; 0 between passes
    scrub_finished_s: float = 0.0  # when the last one ended, since the epoch; 0: none yet
    quarantined: Natural = 0
    failed: bool = False
    filesystem: str = ""


class Register(Message, frozen=True, kw_only=True):
    """A chunkd starts (or metad has forgotten it).  `cluster_id` is empty for a fresh server.

    `incarnation` grows with each start of the same server; an older one is refused while a newer
    one is known, and a second process with the same identity is refused while the first is up.
    `process` is drawn at each start: two starts may count up to the same incarnation (copied data
    directories).  `first`: this process was not registered before; only then may its incarnation be
    too small because its disk was set back to an older state.
    """

    server_id: str
    incarnation: int
    address: str
    software: str
    cluster_id: str = ""
    zone: str = ""
    rack: str = ""
    labels: list[str] = []
    host: HostFigures
    disks: list[DiskFigures]
    process: str = ""
    first: bool = False


class Registered(Message, frozen=True, kw_only=True):
    """`incarnation`: 0, or the one that the server has from now on, as its own was used before."""

    cluster_id: str
    heartbeat_s: float
    incarnation: int = 0


class ReplicaReport(Message, frozen=True, kw_only=True):
    """A change that metad did not order: a replica found bad, lost, or found good again."""

    chunk: ChunkId
    disk: str
    state: Literal["bad", "missing", "good"]
    reason: str = ""


class Piece(Message, frozen=True, kw_only=True):
    """A part of a chunk to be assembled: of another chunk, or the bytes themselves."""

    length: Annotated[int, msgspec.Meta(ge=1)]
    chunk: bytes = b""
    chunk_offset: Natural = 0
    chunk_length: Natural = 0
    digest: bytes = b""
    sources: list[Replica] = []
    data: bytes = b""

    def __post_init__(self) -> None:
        if not self.chunk and len(self.data) != self.length:
            raise ValueError("a piece needs a chunk or its bytes")


class Order(Message, frozen=True, kw_only=True):
    """One thing to do.  `copy`: fetch the chunk from `sources`, verify, keep on `disk`.

    `rebuild`: no source is good; make it of the good blocks of all of them.  `assemble`: make a new
    chunk of `pieces`.  `verify` with a `digest`: other content than that is bad.
    """

    order_id: int
    kind: Literal["copy", "delete", "verify", "rebuild", "assemble"]
    chunk: ChunkId
    disk: str
    length: Natural = 0
    digest: bytes = b""
    sources: list[Replica] = []
    pieces: list[Piece] = []


class OrderResult(Message, frozen=True, kw_only=True):
    """`lost`: blocks of which a rebuild found no good copy, though every source was asked;
    `unreachable`: addresses of sources of a copy that gave no answer; `digest`: of the chunk that
    was assembled."""

    order_id: int
    ok: bool
    reason: str = ""
    lost: list[Natural] = []
    unreachable: list[str] = []
    digest: bytes = b""


class Heartbeat(Message, frozen=True, kw_only=True):
    server_id: str
    incarnation: int
    host: HostFigures
    disks: list[DiskFigures]
    reports: list[ReplicaReport] = []
    results: list[OrderResult] = []
    process: str = ""
    peers: Experiences = []


class HeartbeatReply(Message, frozen=True, kw_only=True):
    """`register`: metad does not know this incarnation; register again.  `called_off`: orders that
    need not be carried out any more; each of them gets a result all the same.  `inventory`: send
    one of every disk now."""

    orders: list[Order] = []
    register: bool = False
    inventory: bool = False
    called_off: list[int] = []


class Inventory(Message, frozen=True, kw_only=True):
    """A page of the chunk ids that a disk holds: all ids in [first, last], sorted, concatenated.

    Pages cover the whole id space in order; metad compares each range with what it believes.
    """

    server_id: str
    incarnation: int
    disk: str
    first: ChunkId
    last: ChunkId
    chunks: bytes
    number: Natural = 0  # of the whole inventory, counted by this process for this disk

    def __post_init__(self) -> None:
        if len(self.chunks) % CHUNK_ID_BYTES:
            raise ValueError("inventory is not a sequence of chunk ids")


class InventoryReply(Message, frozen=True, kw_only=True):
    """Ids that metad does not know: to be kept aside, not deleted.

    `hold`: what was set aside does not expire now, for metad itself was restored and may be the one
    that does not know.
    """

    unknown: list[ChunkId] = []
    hold: bool = False


class InventoryChanges(Message, frozen=True, kw_only=True):
    """What differs on a disk from what metad has heard: chunk ids, each sorted and concatenated.

    `after` is the number of the inventory, or of the changes, that metad confirmed last.
    """

    server_id: str
    incarnation: int
    disk: str
    after: Natural
    gone: bytes = b""
    new: bytes = b""

    def __post_init__(self) -> None:
        if len(self.gone) % CHUNK_ID_BYTES or len(self.new) % CHUNK_ID_BYTES:
            raise ValueError("changes are not sequences of chunk ids")


class ChangesReply(Message, frozen=True, kw_only=True):
    """`unknown` and `hold` as in InventoryReply.  `whole`: metad cannot use changes, for it does
    not remember `after`; an inventory is wanted instead."""

    unknown: list[ChunkId] = []
    hold: bool = False
    whole: bool = False


class ServerStatus(Message, frozen=True, kw_only=True):
    server_id: str
    address: str
    state: Literal["up", "suspect", "down"]
    last_heartbeat_s: float  # seconds ago
    reason: str = ""  # why it is not up, where that is not only silence
    zone: str
    rack: str
    labels: list[str]
    software: str
    host: HostFigures
    disks: list[DiskFigures]
    chunks: int
    total_bytes: int
    free_bytes: int
    admin: Admin = "enabled"
    disk_admin: dict[str, Admin] = {}  # of disks that are not just enabled
    incarnation: int = 0  # how often it was started
    traffic: Traffic = Traffic()
    disk_traffic: dict[str, Traffic] = {}


class ChunkTotals(Message, frozen=True, kw_only=True):
    """Live chunks by redundancy.  `by_replicas[n]` counts chunks with n good replicas on live
    servers; `misplaced` those that have some in one failure domain of their policy (or on one
    server, or not where the label is) though there are others."""

    total: int
    bytes: int
    under_replicated: int
    lost: int
    by_replicas: list[int]
    pending_delete: int = 0
    misplaced: int = 0


class SessionStatus(Message, frozen=True, kw_only=True):
    session: str
    host: str
    mount_point: str
    pid: int
    software: str
    expires_s: float
    connected: bool


class ClusterStatus(Message, frozen=True, kw_only=True):
    cluster_id: str
    software: str
    replicas: int
    chunk_size_bytes: int
    inodes: int
    servers: list[ServerStatus]
    sessions: list[SessionStatus]
    chunks: ChunkTotals
    total_bytes: int
    free_bytes: int
    used_bytes: int
    repair: RepairStatus = RepairStatus()
    unsatisfied: list[str] = []  # what policies of directories want and the servers cannot do
    journal_copies: int = 0  # chunkds that have everything of metad's journal, and how many should
    journal_copies_wanted: int = 0
    jobs: list[JobStatus] = []  # that run
    reclaim_held: str = ""  # why nothing is deleted: a restore that nobody has confirmed


class InfoRequest(Message, frozen=True, kw_only=True):
    """By inode number, or by path from the root of the file system."""

    inode: int = 0
    path: bytes = b""


class ReplicaInfo(Message, frozen=True, kw_only=True):
    disk: str
    server_id: str
    address: str
    path: str
    state: str
    server_state: str


class ChunkInfo(Message, frozen=True, kw_only=True):
    """`missing`: how many good copies fewer than wanted there are, as far as servers allow."""

    chunk: ChunkId
    length: int
    digest: bytes
    refs: int
    state: str
    replicas: list[ReplicaInfo]
    missing: int = 0


class InfoReply(Message, frozen=True, kw_only=True):
    """Inline extents come without their data.  `lost` cannot be read at the moment."""

    attr: Attr
    paths: list[bytes]
    extents: list[ExtentInfo]
    chunks: list[ChunkInfo]
    locks: list[LockInfo] = []
    lost: list[LostRange] = []


class LockInfo(Message, frozen=True, kw_only=True):
    """A lock that somebody holds or waits for.  `end` is the last byte; None is wherever the file
    ends."""

    kind: Literal["fcntl", "flock"]
    type: Literal["read", "write"]
    waits: bool
    start: int
    end: int | None
    host: str
    mount_point: str
    pid: int  # on that host; 0 when it is not known


class ExtentInfo(Message, frozen=True, kw_only=True):
    offset: int
    length: int
    chunk: bytes = b""
    chunk_offset: int = 0


class FsckRequest(Message, frozen=True, kw_only=True):
    """`limit`: how many findings at most are described; all are counted.

    `repair`: "plan" says what "do" would do, and changes nothing.
    """

    limit: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1000
    repair: Literal["no", "plan", "do"] = "no"


class Finding(Message, frozen=True, kw_only=True):
    """One broken invariant: which check, what about, and a sentence."""

    check: str
    subject: str
    message: str


class FsckReport(Message, frozen=True, kw_only=True):
    """`fixes` are what was done, or would be; the findings are those that are left after it."""

    findings: list[Finding]
    count: int
    inodes: int
    dentries: int
    extents: int
    chunks: int
    replicas: int
    orphans: int
    fixes: list[Finding] = []
    fixes_count: int = 0
    repaired: bool = False
