"""Sessions whose end can't be written down at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfswire.errors import NoSpace, SessionLost
from metad.sessions import rows as sessions
from metad.storage.database import Database
from tests.t2_metad.metad_for_tests import FakeClient, Metad


async def test_a_full_database_does_not_keep_a_session_alive(
    db: Database,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: Callable[[str], None],
) -> None:
    expect_log("rows of ended sessions")
    metad = Metad(db, nursery)
    await metad.start()
    client = await FakeClient(metad, nursery).open()

    async def full(work: object) -> None:
        raise NoSpace("full")

    with monkeypatch.context() as patched:
        patched.setattr(db, "write", full)
        mock_clock.jump(31.0)
        await wait_all_tasks_blocked()
        with pytest.raises(SessionLost):
            await client.lookup(b"f")
        assert len(sessions.list_sessions(db)) == 1
    mock_clock.jump(1.0)
    await wait_all_tasks_blocked()
    assert sessions.list_sessions(db) == []
    metad.crash()


async def test_a_session_that_expires_while_rows_are_removed_ends_then(
    db: Database, nursery: trio.Nursery, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    metad = Metad(db, nursery)
    await metad.start()
    await FakeClient(metad, nursery).open()
    mock_clock.jump(1.0)
    other = await FakeClient(metad, nursery).open()
    write, slow = db.write, trio.Event()

    async def write_slowly(work: Callable[[], object]) -> object:
        await slow.wait()
        return await write(work)

    monkeypatch.setattr(db, "write", write_slowly)
    mock_clock.jump(29.5)
    await wait_all_tasks_blocked()
    mock_clock.jump(5.0)
    slow.set()
    await wait_all_tasks_blocked()
    with pytest.raises(SessionLost):
        await other.lookup(b"f")
    assert sessions.list_sessions(db) == []
    metad.crash()
