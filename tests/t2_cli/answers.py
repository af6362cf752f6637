"""Answers of a metad that does not exist, for the verbs that show them."""

from __future__ import annotations

from typing import Literal

from dfswire.hosts import DiskFigures, HostFigures
from dfswire.info import ChunkInfo, ExtentInfo, InfoReply, LockInfo, ReplicaInfo
from dfswire.messages import Attr
from dfswire.status import ChunkTotals, ClusterStatus, ServerStatus

State = Literal["up", "suspect", "down"]


def server(state: State = "up", *, failed: bool = False, port: int = 1) -> ServerStatus:
    """One chunkd with one disk."""
    disk = DiskFigures(
        disk="d1", path="/d1", total_bytes=10, free_bytes=4, chunks=2, used_bytes=6, failed=failed
    )
    return ServerStatus(
        server_id=f"{port:032x}",
        address=f"127.0.0.1:{port}",
        state=state,
        last_heartbeat_s=7.2,
        zone="z",
        rack="",
        labels=[],
        software="0.1.0",
        host=HostFigures(hostname="a[b]c"),
        disks=[disk],
        chunks=2,
        total_bytes=10,
        free_bytes=4,
    )


def cluster(*servers: ServerStatus, lost: int = 0, under: int = 0) -> ClusterStatus:
    """A cluster with some chunks."""
    totals = ChunkTotals(
        total=2, bytes=6, under_replicated=under, lost=lost, by_replicas=[lost, under, 2]
    )
    return ClusterStatus(
        cluster_id="c",
        software="0.1.0",
        replicas=2,
        chunk_size_bytes=4 << 20,
        inodes=3,
        servers=list(servers),
        sessions=[],
        chunks=totals,
        total_bytes=10,
        free_bytes=4,
        used_bytes=6,
    )


def file_info(*states: tuple[str, str]) -> InfoReply:
    """A file with an inline extent and a chunk whose replicas are in (state, server state)."""
    chunk = bytes(range(16))
    replicas = [
        ReplicaInfo(
            disk="d",
            server_id=f"{number:032x}",
            address=f"h:{number}",
            path=f"/d/{number}",
            state=state,
            server_state=server_state,
        )
        for number, (state, server_state) in enumerate(states)
    ]
    attr = Attr(
        inode=9, mode=0o100644, uid=0, gid=0, size=12, atime_ns=0, mtime_ns=0, ctime_ns=0, nlink=2
    )
    return InfoReply(
        attr=attr,
        paths=[b"/a b", b"/[x]\xff"],
        extents=[
            ExtentInfo(offset=0, length=4),
            ExtentInfo(offset=4, length=8, chunk=chunk, chunk_offset=1),
        ],
        chunks=[
            ChunkInfo(
                chunk=chunk, length=9, digest=bytes(16), refs=1, state="live", replicas=replicas
            )
        ],
        locks=[
            LockInfo(
                kind="fcntl",
                type="read",
                waits=waits,
                start=3,
                end=end,
                host="h[1]",
                mount_point="/m",
                pid=pid,
            )
            for waits, end, pid in ((False, 5, 77), (True, None, 78))
        ],
    )
