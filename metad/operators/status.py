"""What operators are shown: the state of the cluster, and everything about one file.

Reads only.  What needs whole tables is counted by totals.py.
"""

from __future__ import annotations

import stat

import msgspec

from dfswire.errors import NoEntry, UsageError
from dfswire.health import RepairStatus
from dfswire.hosts import DiskFigures
from dfswire.info import ChunkInfo, ExtentInfo, InfoReply, InfoRequest, ReplicaInfo
from dfswire.messages import FILE_MAX_BYTES, ROOT_INODE
from dfswire.status import ClusterStatus, ServerStatus, SessionStatus
from dfswire.verify import FilesBelow, FilesReply, FindLost, LostFile, LostReply
from metad.clients.room import room
from metad.clients.sessioncalls import Clients
from metad.copies import damage, replicas
from metad.hosts.server import Server
from metad.hosts.traffic import total
from metad.names import chunkmap, namespace
from metad.operators.totals import Totals
from metad.recovery.fence import reclaim_held
from metad.state import State
from metad.storage.database import Database

_FILES_BELOW = (
    "WITH RECURSIVE tree (inode) AS (VALUES (?1) UNION "
    "SELECT d.inode FROM tree JOIN dentry d ON d.parent = tree.inode) "
    "SELECT inode FROM tree JOIN inode USING (inode) "
    f"WHERE (mode & {0o170000}) = {stat.S_IFREG} AND inode > ?2 ORDER BY inode"
)
PATHS_MAX = 100  # of one inode; somebody has files with a million hard links


async def cluster_status(
    state: State, clients: Clients, totals: Totals, repair: RepairStatus
) -> ClusterStatus:
    """Servers, sessions, redundancy and room."""
    counted = await totals.get()
    excess = replicas.count_condemned(state.db)
    total, free = room(state, known_only=True)
    return ClusterStatus(
        cluster_id=state.cluster_id,
        software=state.software,
        replicas=state.policy.replicas,
        chunk_size_bytes=state.policy.chunk_size_bytes,
        inodes=counted.inodes,
        servers=sorted(
            (_server(state, each) for each in state.servers), key=lambda each: each.server_id
        ),
        sessions=_sessions(state, clients),
        chunks=counted.chunks,
        total_bytes=total,
        free_bytes=free,
        used_bytes=counted.chunks.bytes,
        repair=msgspec.structs.replace(repair, excess=excess),
        journal_copies=state.followers.in_step,
        journal_copies_wanted=state.followers.copies,
        foreign=state.servers.foreign(state.clock()),
        reclaim_held=reclaim_held(state.db),
    )


def _server(state: State, server: Server) -> ServerStatus:
    now = state.clock()
    disks: list[DiskFigures] = sorted(server.disks.values(), key=lambda each: each.disk)
    rates = {each.disk: state.traffic.of(each.disk, now) for each in disks}
    return ServerStatus(
        server_id=server.server_id,
        address=server.address,
        state=state.servers.state(server, now),
        last_heartbeat_s=max(now - server.last_heartbeat_s, 0.0),
        heard=server.heard,
        reason=state.servers.reason(server, now),
        zone=server.zone,
        rack=server.rack,
        labels=server.labels,
        software=server.software,
        host=server.host,
        disks=disks,
        chunks=sum(each.chunks for each in disks),
        total_bytes=sum(each.total_bytes for each in disks),
        free_bytes=sum(each.free_bytes for each in disks),
        admin=state.servers.server_admin(server.server_id),
        disk_admin={
            each.disk: admin
            for each in disks
            if (admin := state.servers.disk_admin(each.disk)) != "enabled"
        },
        incarnation=server.incarnation,
        traffic=total(rates.values()),
        disk_traffic=rates,
    )


def _sessions(state: State, clients: Clients) -> list[SessionStatus]:
    now = state.clock()
    expires_s = {each.session: each.expires_s for each in state.leases}
    return [
        SessionStatus(
            session=each.session,
            host=each.host,
            mount_point=each.mount_point,
            pid=each.pid,
            software=each.software,
            expires_s=max(expires_s[each.session] - now, 0.0),
            connected=state.streams.connected(each.session),
        )
        for each in clients.all()
    ]


def info(state: State, request: InfoRequest) -> InfoReply:
    """Everything about one inode.  Raises NoEntry, NotDirectory, UsageError (neither given)."""
    db = state.db
    with db.snapshot():
        inode = request.inode or walk(db, request.path)
        attr = namespace.getattr_(db, inode)
        extents, _ = chunkmap.layout(db, inode, 0, FILE_MAX_BYTES)
        chunks = dict.fromkeys(each.chunk for each in extents if each.chunk)
        return InfoReply(
            attr=attr,
            paths=paths_of(db, inode),
            extents=[
                ExtentInfo(
                    offset=each.offset,
                    length=each.length,
                    chunk=each.chunk,
                    chunk_offset=each.chunk_offset,
                )
                for each in extents
            ],
            chunks=[_chunk(state, chunk) for chunk in chunks],
            lost=damage.lost_ranges(db, state.servers.live_disks(state.clock()), inode),
        )


async def lost(state: State, request: FindLost) -> LostReply:
    """Files of which something cannot be read."""
    live = state.servers.live_disks(state.clock())

    def look(db: Database) -> LostReply:
        found, count = damage.lost_files(db, live, request.limit)
        files = [
            LostFile(inode=inode, paths=paths_of(db, inode), ranges=ranges)
            for inode, ranges in found
        ]
        return LostReply(files=files, count=count)

    return await state.db.read_in_thread(look)


async def files_below(state: State, request: FilesBelow) -> FilesReply:
    """Regular files in a tree.  Raises NoEntry, NotDirectory, UsageError."""

    def look(db: Database) -> FilesReply:
        root = request.inode or walk(db, request.path)
        namespace.getattr_(db, root)
        rows = db.read(_FILES_BELOW, (root, request.after))
        found = [inode for (inode,) in rows]
        return FilesReply(inodes=found[: request.limit], count=len(found))

    return await state.db.read_in_thread(look)


def walk(db: Database, path: bytes) -> int:
    """The inode at a path from the root.  Raises NoEntry, NotDirectory, UsageError."""
    if not path.startswith(b"/"):
        raise UsageError("give an inode number, or a path that starts with / (the cluster's root)")
    inode = ROOT_INODE
    for name in path.split(b"/"):
        if name:
            attr = namespace.lookup(db, inode, name)
            if attr is None:
                raise NoEntry(f"no {name!r} on the way to {path!r}")
            inode = attr.inode
    return inode


def paths_of(db: Database, inode: int) -> list[bytes]:
    """Paths from the root to an inode, at most PATHS_MAX of them; none for an unlinked one."""
    if inode == ROOT_INODE:
        return [b"/"]
    names = db.read("SELECT parent, name FROM dentry WHERE inode = ? LIMIT ?", (inode, PATHS_MAX))
    return [_path(db, parent, bytes(name)) for parent, name in names]


def _path(db: Database, parent: int, name: bytes) -> bytes:
    parts = [name]
    while parent != ROOT_INODE:
        row = db.read_one("SELECT parent, name FROM dentry WHERE inode = ?", (parent,))
        if row is None:
            raise NoEntry(f"directory {parent} has no name: run fsck")
        parent = row[0]
        parts.append(bytes(row[1]))
    return b"/" + b"/".join(reversed(parts))


def _chunk(state: State, chunk: bytes) -> ChunkInfo:
    stored = replicas.chunk_info(state.db, chunk)
    if stored is None:
        raise NoEntry(f"chunk {chunk.hex()} has no row: run fsck")
    rows = replicas.replicas_of(state.db, chunk)
    return ChunkInfo(
        chunk=chunk,
        length=stored.length,
        digest=stored.digest,
        refs=stored.refs,
        state=stored.state,
        replicas=[_replica(state, disk, replica_state) for disk, replica_state in rows],
        missing=_missing(state, stored.policy, rows),
    )


def _missing(state: State, policy: int, rows: list[tuple[str, str]]) -> int:
    servers, now = state.servers, state.clock()
    live = {disk for disk in servers.live_disks(now) if servers.is_wanted(disk)}
    hosts = {server.server_id for disk in live if (server := servers.server_of(disk)) is not None}
    good = sum(replica == replicas.GOOD and disk in live for disk, replica in rows)
    wanted = min(state.policies.of(policy).replicas, max(len(hosts), 1))
    return max(wanted - good, 0)


def _replica(state: State, disk: str, replica_state: str) -> ReplicaInfo:
    server = state.servers.server_of(disk)
    figures = server.disks.get(disk) if server is not None else None
    return ReplicaInfo(
        disk=disk,
        server_id=server.server_id if server is not None else "",
        address=server.address if server is not None else "",
        path=figures.path if figures is not None else "",
        state=replica_state,
        server_state=state.servers.disk_state(disk, state.clock()),
    )
