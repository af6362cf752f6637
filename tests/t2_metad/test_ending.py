"""The end of the process: a database that cannot be written does not hold it up."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from dfswire.errors import NoSpace
from metad.__main__ import _finish
from metad.storage.database import Database
from tests.t2_metad.metad_for_tests import Metad


async def test_a_full_database(
    db: Database,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: Callable[[str], None],
) -> None:
    expect_log("the last events are lost: full")
    metad = Metad(db, nursery)
    await metad.start(background=False)

    async def refuse() -> None:
        raise NoSpace("full")

    monkeypatch.setattr(metad.service, "stop", refuse)
    await _finish(metad.service)
    metad.crash()
