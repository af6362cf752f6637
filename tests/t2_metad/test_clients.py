"""Sessions whose end can't be written down at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfswire.errors import NoSpace, SessionLost
from metad import sessions
from metad.database import Database
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
