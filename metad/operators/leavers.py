"""Which server or disk an operator means, by its id, the beginning of that, or its address.

Used by drains.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dfswire.errors import NoEntry, UsageError
from metad.storage.database import Database


@dataclass(frozen=True)
class Leaver:
    """A server, or one of its disks."""

    server: str
    disk: str

    @property
    def argument(self) -> dict[str, Any]:
        return {"disk": self.disk} if self.disk else {"server": self.server}

    @property
    def text(self) -> str:
        return f"disk {self.disk}" if self.disk else f"server {self.server}"


def find_leaver(db: Database, server: str, disk: str) -> Leaver:
    """What an operator means.  Raises NoEntry, UsageError."""
    if bool(server) == bool(disk):
        raise UsageError("name either a server or a disk")
    known = db.read(
        "SELECT s.id, s.address, d.identity FROM server s LEFT JOIN disk d ON d.server = s.id"
    )
    if disk:
        found = {Leaver(owner, name) for owner, _, name in known if _means(disk, name)}
        what = f"disk {disk!r}"
    else:
        found = {
            Leaver(name, "")
            for name, address, _ in known
            if _means(server, name) or server == address
        }
        what = f"server {server!r}"
    exact = {each for each in found if (each.disk or each.server) == (disk or server)}
    found = exact or found
    if len(found) != 1:
        if found:
            raise UsageError(f"{what} can be several; give more of its id")
        raise NoEntry(f"there is no {what}; 'dfs nodes' shows what there is")
    return found.pop()


def _means(given: str, name: str | None) -> bool:
    return name is not None and name.startswith(given)
