"""Servers and disks with round figures, for the tests of placement, servers, repair and service."""

from __future__ import annotations

from collections.abc import Sequence

from dfswire.heartbeats import Heartbeat, ReplicaReport
from dfswire.hosts import DiskFigures, HostFigures, Register
from dfswire.orders import OrderResult

GIB = 1 << 30


def disk(
    name: str, *, free: int = 50 * GIB, total: int = 100 * GIB, failed: bool = False
) -> DiskFigures:
    return DiskFigures(
        disk=name,
        path=f"/data/{name}",
        total_bytes=total,
        free_bytes=free,
        chunks=0,
        used_bytes=total - free,
        failed=failed,
    )


def register(
    server: str,
    *,
    incarnation: int = 1,
    address: str = "",
    disks: Sequence[DiskFigures] | None = None,
    cluster_id: str = "",
    zone: str = "",
    rack: str = "",
    process: str = "",
    first: bool = False,
) -> Register:
    """Server "s1" has disk "s1-d", is at "s1:9500", on a host of its own."""
    return Register(
        server_id=server,
        incarnation=incarnation,
        address=address or f"{server}:9500",
        software="test",
        cluster_id=cluster_id,
        zone=zone,
        rack=rack,
        host=HostFigures(hostname=f"host-{server}", cpu_count=4),
        disks=[disk(f"{server}-d")] if disks is None else list(disks),
        process=process,
        first=first,
    )


def heartbeat(
    server: str,
    *,
    incarnation: int = 1,
    disks: Sequence[DiskFigures] | None = None,
    results: Sequence[OrderResult] = (),
    reports: Sequence[ReplicaReport] = (),
    process: str = "",
) -> Heartbeat:
    return Heartbeat(
        server_id=server,
        incarnation=incarnation,
        host=HostFigures(hostname=f"host-{server}", cpu_count=4),
        disks=[disk(f"{server}-d")] if disks is None else list(disks),
        results=list(results),
        reports=list(reports),
        process=process,
    )
