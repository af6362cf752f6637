"""What columns of several tables share.  Used by the modules schema_*.py only."""

from __future__ import annotations

from typing import Any

from peewee import SQL, Node

NEVER_REUSED: list[Node] = [SQL("AUTOINCREMENT")]
ZERO = SQL("DEFAULT 0")  # of columns that came later: what it is in rows that are older
ENABLED = SQL("DEFAULT 'enabled'")
NOBODY = SQL("DEFAULT ''")


def optional(column: Any) -> SQL:
    """The condition of a partial index that has only the rows where `column` is in use."""
    return SQL(f'"{column.column_name}" IS NOT NULL')
