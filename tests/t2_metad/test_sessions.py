"""Rows of sessions, and what goes with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dfswire import errors
from metad.sessions import rows as sessions

if TYPE_CHECKING:
    from metad.storage.database import Database


def stored(session: str) -> sessions.StoredSession:
    return sessions.StoredSession(session, "host", "/mnt", 42, "1.0", 5)


def test_open_list_close(db: Database) -> None:
    with db.transaction():
        sessions.open_session(db, stored("b"))
        sessions.open_session(db, stored("a"))
    assert sessions.list_sessions(db) == [stored("a"), stored("b")]
    assert sessions.acknowledged(db, "a") == 0
    with db.transaction():
        assert sessions.close_session(db, "a", 9)
        assert not sessions.close_session(db, "a", 9)
    assert sessions.list_sessions(db) == [stored("b")]
    with pytest.raises(errors.SessionLost):
        sessions.acknowledged(db, "a")
