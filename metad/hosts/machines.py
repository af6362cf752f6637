"""Servers and disks as rows: what a restarted metad knows of its chunkds before they call again.

The service saves each accepted registration; at start it loads them all, so that replicas can be
located at once and a server that never comes back is missed.  Figures that age (free space, load)
are not kept.  Synchronous functions in the caller's transaction.
"""

from __future__ import annotations

import msgspec

from dfswire.hosts import Admin, DiskFigures, HostFigures, NetworkAddress, Register
from metad.storage.database import Database

ACTIVE, FAILED = "active", "failed"  # disk.state
_SERVER = "id, incarnation, address, software, zone, rack, labels, hostname, addresses"
_SERVER_AGAIN = ", ".join(f"{name} = excluded.{name}" for name in _SERVER.split(", ")[1:])


def save_server(db: Database, registration: Register) -> None:
    """Remember a chunkd and its disks as they registered.

    A disk that another server had moves to this one.  Disks that the server no longer has keep
    their rows: replicas may be on them, and they may come back.
    """
    host = registration.host
    db.change(
        f"INSERT INTO server ({_SERVER}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
        f"ON CONFLICT (id) DO UPDATE SET {_SERVER_AGAIN}",
        (
            registration.server_id,
            registration.incarnation,
            registration.address,
            registration.software,
            registration.zone,
            registration.rack,
            msgspec.json.encode(registration.labels).decode(),
            host.hostname,
            msgspec.json.encode(host.addresses).decode(),
        ),
    )
    for disk in registration.disks:
        db.change(
            "INSERT INTO disk (identity, server, path, total_bytes, state) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (identity) DO UPDATE SET server = excluded.server, path = excluded.path, "
            "total_bytes = excluded.total_bytes, state = excluded.state",
            (
                disk.disk,
                registration.server_id,
                disk.path,
                disk.total_bytes,
                FAILED if disk.failed else ACTIVE,
            ),
        )


def set_disk_failed(db: Database, disk: str, failed: bool) -> None:
    """Remember that a disk failed (or was repaired); its good replicas do not count until then."""
    db.change("UPDATE disk SET state = ? WHERE identity = ?", (FAILED if failed else ACTIVE, disk))


def load_admin(db: Database) -> tuple[dict[str, Admin], dict[str, Admin]]:
    """What operators want of servers and of disks, by identity; only of those not just enabled."""
    return (
        dict(db.read("SELECT id, admin FROM server WHERE admin <> 'enabled'")),
        dict(db.read("SELECT identity, admin FROM disk WHERE admin <> 'enabled'")),
    )


def admin_of(db: Database, server_id: str, disk: str) -> Admin:
    """What an operator wants of a disk, or (disk empty) of a server, by its own row."""
    if disk:
        row = db.read_one("SELECT admin FROM disk WHERE identity = ?", (disk,))
    else:
        row = db.read_one("SELECT admin FROM server WHERE id = ?", (server_id,))
    admin: Admin = row[0] if row else "enabled"
    return admin


def set_server_admin(db: Database, server_id: str, admin: Admin) -> None:
    """In a mutation: remember what an operator wants of a server."""
    db.change("UPDATE server SET admin = ? WHERE id = ?", (admin, server_id))


def set_disk_admin(db: Database, disk: str, admin: Admin) -> None:
    """In a mutation: remember what an operator wants of a disk."""
    db.change("UPDATE disk SET admin = ? WHERE identity = ?", (admin, disk))


def load_servers(db: Database) -> list[Register]:
    """Every chunkd that ever registered, with its disks, as a registration.

    Free space, chunk counts and used bytes are 0: unknown until the next heartbeat, and so nothing
    is placed there before.
    """
    with db.snapshot():
        disks: dict[str, list[DiskFigures]] = {}
        for server, identity, path, total_bytes, state in db.read(
            "SELECT server, identity, path, total_bytes, state FROM disk ORDER BY identity"
        ):
            disks.setdefault(server, []).append(_disk(identity, path, total_bytes, state))
        return [
            Register(
                server_id=server_id,
                incarnation=incarnation,
                address=address,
                software=software,
                zone=zone,
                rack=rack,
                labels=msgspec.json.decode(labels, type=list[str]),
                host=HostFigures(
                    hostname=hostname,
                    addresses=msgspec.json.decode(addresses, type=list[NetworkAddress]),
                ),
                disks=disks.get(server_id, []),
            )
            for (
                server_id,
                incarnation,
                address,
                software,
                zone,
                rack,
                labels,
                hostname,
                addresses,
            ) in db.read(f"SELECT {_SERVER} FROM server ORDER BY id")
        ]


def _disk(identity: str, path: str, total_bytes: int, state: str) -> DiskFigures:
    return DiskFigures(
        disk=identity,
        path=path,
        total_bytes=total_bytes,
        free_bytes=0,
        chunks=0,
        used_bytes=0,
        failed=state == FAILED,
    )
