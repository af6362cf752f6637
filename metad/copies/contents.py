"""What disks hold, compared with what metad believes of them: inventories and their changes.

Synchronous functions on the database for upkeep/inventories.py; they change nothing.  A dead chunk
is not missed: it may have been deleted, and metad not told of it yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import NamedTuple

from metad.copies.replicas import EXCESS, GOOD, LIVE, chunk_info, disk_key
from metad.storage.database import Database

_SETTLED = (GOOD, EXCESS)  # a disk that has such a replica has nothing new to tell


class InventoryDiff(NamedTuple):
    """What is contradicted.

    missing: good replicas by our rows, but not on the disk.
    unknown: on the disk, but no chunk of ours: to be kept aside there, never deleted on sight.
    returned: on the disk, chunk live, but the replica is not (or not yet) good by our rows: worth
    verifying, and then set_replica(..., "good").
    """

    missing: list[bytes]
    unknown: list[bytes]
    returned: list[bytes]


def page_diff(db: Database, disk: str, first: bytes, last: bytes, ids: Set[bytes]) -> InventoryDiff:
    """Compare all ids in [first, last] that a disk holds with our rows.  Raises DiskFailed."""
    with db.snapshot():
        believed: dict[bytes, str] = dict(
            db.read(
                "SELECT chunk, state FROM replica WHERE disk = ? AND chunk BETWEEN ? AND ?",
                (disk_key(db, disk), first, last),
            )
        )
        return _diff(db, believed, ids)


def changes_diff(db: Database, disk: str, gone: Set[bytes], new: Set[bytes]) -> InventoryDiff:
    """The same of ids that a disk does not hold any more, or did not before.  Raises DiskFailed."""
    with db.snapshot():
        key = disk_key(db, disk)
        believed: dict[bytes, str] = {}
        for chunk in gone | new:
            row = db.read_one(
                "SELECT state FROM replica WHERE chunk = ? AND disk = ?", (chunk, key)
            )
            if row is not None:
                (believed[chunk],) = row
        return _diff(db, believed, new)


def _diff(db: Database, believed: Mapping[bytes, str], ids: Set[bytes]) -> InventoryDiff:
    missing = [
        chunk
        for chunk, state in believed.items()
        if state == GOOD and chunk not in ids and _state_of(db, chunk) == LIVE
    ]
    known = {
        chunk: state
        for chunk in ids
        if believed.get(chunk) not in _SETTLED and (state := _state_of(db, chunk))
    }
    settled = known.keys() | {chunk for chunk, state in believed.items() if state in _SETTLED}
    return InventoryDiff(
        missing=sorted(missing),
        unknown=sorted(ids - settled),
        returned=sorted(chunk for chunk, state in known.items() if state == LIVE),
    )


def _state_of(db: Database, chunk: bytes) -> str:
    """Empty for one that metad does not know."""
    info = chunk_info(db, chunk)
    return info.state if info is not None else ""
