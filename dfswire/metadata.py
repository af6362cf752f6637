"""Requests and replies between a client and metad: sessions, reads of names and files, chunk
grants.

Mutations are in operations.py.  A read registers the session as a holder of the inodes that it
names and returns, before the data is read, so that no later change can slip past unannounced.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from dfswire.health import Experiences
from dfswire.locks import HeldLocks
from dfswire.messages import (
    Answer,
    Attr,
    ChunkGrant,
    ChunkLocation,
    DirEntry,
    Extent,
    Inode,
    Lease,
    Message,
    Name,
    Natural,
    Size,
    Xattr,
)

READDIR_MAX_ENTRIES = 4096
SEEK_DATA = 3  # the kernel's values, linux/fs.h
SEEK_HOLE = 4
GRANTS_MAX = 256


class OpenSession(Message, frozen=True, kw_only=True):
    """A client introduces itself.  `replaces` are sessions of clients that it knows to be dead.

    `cluster_id` is empty in its first session; later ones are of the same cluster or none.
    """

    host: str
    mount_point: str
    pid: int
    software: str  # version, for people
    replaces: list[str] = []
    cluster_id: str = ""


class SessionGrant(Message, frozen=True, kw_only=True):
    """A session, and what the client must know of the cluster.  `instance` as in Renewed."""

    session: str
    instance: str = ""
    lease_s: float  # valid this long from when the last successful request was SENT
    renew_s: float
    cluster_id: str
    chunk_size_bytes: int
    inline_max_bytes: int
    replicas: int


class SessionRequest(Message, frozen=True, kw_only=True):
    """Close a session."""

    session: str


class RenewSession(Message, frozen=True, kw_only=True):
    """Keep the lease of a session.  `servers`: what was experienced with chunkds since the last
    renewal.  A metad of another cluster than `cluster_id`, where that is given, says so and not
    that it does not know the session.  Errors: SessionLost, WrongCluster."""

    session: str
    servers: Experiences = []
    cluster_id: str = ""


class Renewed(Message, frozen=True, kw_only=True):
    """The lease counts from when the request was sent.  `instance` names this start of metad."""

    instance: str


class FollowEvents(Message, frozen=True, kw_only=True):
    """Open the event stream: everything cached before is forgotten, except what is said here.

    `open_inodes`: all inodes that this client has open, so that metad, even a restarted one, keeps
    those of them whose last name is gone.  `leases`: the exclusive leases that it still uses
    (there is something dirty, or an operation is under way); all others of it are recalled on the
    new stream, as is again what was recalled before, and one that has ended is invalidated there.
    `locks` are for a metad that was restarted and does not know this session's locks; any other
    knows better.

    metad believes this only when it is new: `instance` is the start of metad that it was made for,
    and `number` is higher than any before it in this session.  A copy that arrives late would
    confirm what the client has not heard, or speak of locks that it has given back.  Errors:
    ESTALE.
    """

    session: str
    instance: str = ""
    number: Natural = 0
    open_inodes: list[int] = []
    leases: list[Lease] = []
    locks: HeldLocks = HeldLocks()


class AckEvents(Message, frozen=True, kw_only=True):
    """Everything up to event `number` is forgotten here.  Also renews the lease."""

    session: str
    number: Natural


class LeaseRequest(Message, frozen=True, kw_only=True):
    """An exclusive lease on `parts` of an inode, in addition to what is held of it.

    Answered when no other session has these parts cached or leased any more.  Errors: ENOENT.
    """

    session: str
    inode: Inode
    parts: Annotated[int, msgspec.Meta(ge=1, le=7)]


class LeaseReply(Answer, frozen=True, kw_only=True):
    """`lease` has all parts that are held now; `attr` is what metad knows at this moment."""

    lease: Lease
    attr: Attr


class GiveBack(Message, frozen=True, kw_only=True):
    """These parts are not held exclusively any more (they stay cached); nothing of them is dirty.

    A lease whose number is not the present one is void: the message was late.
    """

    session: str
    leases: list[Lease]


class LookupRequest(Message, frozen=True, kw_only=True):
    """`name` may be b"." or b".." (NFS export)."""

    session: str
    parent: Inode
    name: Name


class LookupReply(Answer, frozen=True, kw_only=True):
    """`attr` is None when there is no such name: an answer that may be cached too."""

    attr: Attr | None = None


class InodeRequest(Message, frozen=True, kw_only=True):
    """Any question about one inode: getattr, readlink, xattrs."""

    session: str
    inode: Inode


class AttrReply(Answer, frozen=True, kw_only=True):
    attr: Attr


class ReadlinkReply(Answer, frozen=True, kw_only=True):
    target: bytes


class XattrsReply(Answer, frozen=True, kw_only=True):
    """All extended attributes of an inode."""

    xattrs: list[Xattr] = []


class ReaddirRequest(Message, frozen=True, kw_only=True):
    """Entries with a cookie greater than `cookie`, in cookie order, at most `limit`."""

    session: str
    inode: Inode
    cookie: Natural = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=READDIR_MAX_ENTRIES)] = READDIR_MAX_ENTRIES


class ReaddirReply(Answer, frozen=True, kw_only=True):
    """`parent` is the directory's own parent, for "..". Cookies start at 3; 1 and 2 are "." and
    ".."."""

    entries: list[DirEntry]
    end: bool
    parent: Attr


class LayoutRequest(Message, frozen=True, kw_only=True):
    """Which extents cover `length` bytes from `offset`."""

    session: str
    inode: Inode
    offset: Size
    length: Annotated[int, msgspec.Meta(ge=1)]


class LayoutReply(Answer, frozen=True, kw_only=True):
    """Extents in file order, not overlapping, whole ones even where they stick out of the range.

    What lies between them is a hole.  `chunks` locates every chunk that they name; one whose
    `replicas` are empty has no known good copy.  `good_for_s`: how long the tokens in it are good;
    0: there are none.
    """

    attr: Attr
    extents: list[Extent]
    chunks: list[ChunkLocation]
    good_for_s: float = 0.0


class SeekRequest(Message, frozen=True, kw_only=True):
    """Where from `offset` on is data (or a hole)?  Errors: ENXIO: not before the end; EINVAL."""

    session: str
    inode: Inode
    offset: Natural
    whence: int  # SEEK_DATA or SEEK_HOLE


class SeekReply(Answer, frozen=True, kw_only=True):
    offset: Size


class StatfsRequest(Message, frozen=True, kw_only=True):
    session: str


class StatfsReply(Message, frozen=True, kw_only=True):
    """What df shows: bytes of user data, copies already divided out."""

    total_bytes: int
    free_bytes: int
    inodes: int
    inodes_free: int


class GrantRequest(Message, frozen=True, kw_only=True):
    """`count` new chunks.  `avoid` are server addresses that this client cannot use at the
    moment; `inode` is the file that they are for (0: any that follows the default policy)."""

    session: str
    count: Annotated[int, msgspec.Meta(ge=1, le=GRANTS_MAX)]
    avoid: list[str] = []
    inode: Natural = 0


class GrantReply(Message, frozen=True, kw_only=True):
    """Raises NoSpace instead when no set of disks can take a chunk.

    `policy`: the key of what they follow; they serve any file that follows the same.  `uniform`: no
    directory has a policy of its own, so every file follows 0.  `chunk_size_bytes`: of files that
    follow it; 0: as the session says.
    """

    grants: list[ChunkGrant]
    policy: Natural = 0
    uniform: bool = False
    chunk_size_bytes: Natural = 0


class BadReplica(Message, frozen=True, kw_only=True):
    """A client saw that a replica did not give its bytes; metad has it verified by its server."""

    session: str
    chunk: bytes
    disk: str
    reason: str
