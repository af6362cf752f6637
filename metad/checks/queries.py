"""What the checks of all invariants share: a query that yields (subject, message) for each
violation."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable

from metad.storage.database import Database

Violations = Iterable[tuple[str, str]]
Check = Callable[[Database], Violations]

IS_DIRECTORY = f"(mode & {0o170000}) = {stat.S_IFDIR}"
IS_REGULAR = f"(mode & {0o170000}) = {stat.S_IFREG}"
IS_SYMLINK = f"(mode & {0o170000}) = {stat.S_IFLNK}"


def violations(db: Database, sql: str, parameters: tuple[int, ...] = ()) -> Violations:
    """What the query finds, as it is asked for."""
    return ((subject, message) for subject, message in db.iterate(sql, parameters))
