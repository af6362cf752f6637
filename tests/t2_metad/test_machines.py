"""Servers and disks survive a restart of metad."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dfswire.hosts import DiskFigures, HostFigures, NetworkAddress, Register
from metad.hosts import machines

if TYPE_CHECKING:
    from metad.storage.database import Database


def disk(identity: str, free_bytes: int = 0, failed: bool = False) -> DiskFigures:
    return DiskFigures(
        disk=identity,
        path=f"/disks/{identity}",
        total_bytes=100,
        free_bytes=free_bytes,
        chunks=0,
        used_bytes=0,
        failed=failed,
    )


def server(server_id: str, *disks: DiskFigures, incarnation: int = 1) -> Register:
    return Register(
        server_id=server_id,
        incarnation=incarnation,
        address="h:1",
        software="1.0",
        zone="z",
        rack="r",
        labels=["ssd", "new"],
        host=HostFigures(
            hostname="h", addresses=[NetworkAddress(interface="eth0", ip=["10.0.0.1"], mac="aa:bb")]
        ),
        disks=list(disks),
    )


def save(db: Database, registration: Register) -> None:
    with db.transaction():
        machines.save_server(db, registration)


def test_what_is_saved_is_loaded_without_figures_that_age(db: Database) -> None:
    save(db, server("b", disk("d2", free_bytes=7), disk("d1", failed=True)))
    save(db, server("a"))
    assert machines.load_servers(db) == [
        server("a"),
        server("b", disk("d1", failed=True), disk("d2")),
    ]


def test_a_new_registration_replaces_the_old_one(db: Database) -> None:
    save(db, server("a", disk("d1"), disk("d2")))
    save(db, server("a", disk("d1", failed=True), incarnation=2))
    assert machines.load_servers(db) == [
        server("a", disk("d1", failed=True), disk("d2"), incarnation=2)
    ]


def test_a_disk_moves_to_the_server_that_reports_it(db: Database) -> None:
    save(db, server("a", disk("d1")))
    save(db, server("b", disk("d1")))
    assert machines.load_servers(db) == [server("a"), server("b", disk("d1"))]


def test_a_failed_disk_is_remembered(db: Database) -> None:
    save(db, server("a", disk("d1")))
    with db.transaction():
        machines.set_disk_failed(db, "d1", True)
    assert machines.load_servers(db) == [server("a", disk("d1", failed=True))]
    with db.transaction():
        machines.set_disk_failed(db, "d1", False)
    assert machines.load_servers(db) == [server("a", disk("d1"))]


def test_what_operators_want_outlives_registrations(db: Database) -> None:
    save(db, server("a", disk("d1"), disk("d2")))
    with db.transaction():
        machines.set_server_admin(db, "a", "draining")
        machines.set_disk_admin(db, "d2", "drained")
    save(db, server("a", disk("d1"), disk("d2"), incarnation=2))
    assert machines.load_admin(db) == ({"a": "draining"}, {"d2": "drained"})
    with db.transaction():
        machines.set_server_admin(db, "a", "enabled")
    assert machines.load_admin(db) == ({}, {"d2": "drained"})
