"""Doing again what a journal says, on a copy of the database.

Used by a restore and by tests.  `replay` takes one entry and refuses whatever does not follow the
position that the database itself names, so a database never has half of a history, or two.
"""

from __future__ import annotations

import sqlite3

from dfswire.errors import ProtocolError
from dfswire.journal import Entry, Position, decode_changes

_POSITION = (
    "SELECT CAST(value AS INTEGER), term, number, time_ns, digest FROM journal, setting "
    "WHERE name = 'epoch'"
)
_SET_POSITION = "UPDATE journal SET term = ?, number = ?, time_ns = ?, digest = ?"


def position_of(connection: sqlite3.Connection) -> Position:
    """The last entry of the journal that is in the database."""
    ((epoch, term, number, time_ns, digest),) = connection.execute(_POSITION).fetchall()
    return Position(epoch=epoch, term=term, number=number, time_ns=time_ns, digest=digest)


def set_position(connection: sqlite3.Connection, position: Position) -> None:
    """Say which entry this is, in the transaction that has its changes."""
    connection.execute(
        _SET_POSITION, (position.term, position.number, position.time_ns, position.digest)
    )


def replay(connection: sqlite3.Connection, entry: Entry) -> None:
    """Run the statements of `entry`, in the caller's transaction.

    Raises ProtocolError when it is damaged or not the next one, sqlite3.Error when a statement
    fails: then the transaction must be undone.
    """
    found = position_of(connection)
    if not entry.is_sound:
        raise ProtocolError(f"journal entry {entry.number} is damaged")
    if entry.previous != found.digest or entry.number != found.number + 1:
        raise ProtocolError(f"journal entry {entry.number} does not follow entry {found.number}")
    for statement, rows in decode_changes(entry.body):
        connection.executemany(statement, rows)
    set_position(connection, entry.position)
