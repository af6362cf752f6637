"""The database is read through while metad serves, and ends it when a bit has rotted."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from dfswire.errors import InputOutput, Unavailable
from metad.storage.opening import open_database
from metad.storage.pagesums import PageSums
from metad.storage.verification import verify, verify_at_once, verify_forever
from tests.t2_metad import pages

ExpectLog = Callable[[str], None]


async def test_rot_is_found_while_it_serves(paged: Path, expect_log: ExpectLog) -> None:
    expect_log("db: page 21 is damaged")
    db = pages.opened(paged)
    pages.fill(db, 1000, 10)
    assert await verify(db, pause_s=0) > 20
    pages.flip(paged, 20 * pages.PAGE * 8 + 77)
    await verify(db, pause_s=0)
    with pytest.raises(Unavailable, match="page 21"):
        db.failure.check()
    with pytest.raises(Unavailable, match="page 21"):
        verify_at_once(db)
    db.close()


async def test_a_database_that_cannot_be_read(
    paged: Path, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    expect_log("db cannot be read: .*told to")
    db = pages.opened(paged)
    monkeypatch.setattr(PageSums, "damaged", pages.failing(OSError(errno.EIO, "told to")))
    await verify(db, pause_s=0)
    assert db.failure.problem is not None
    db.close()


async def test_it_is_read_through_each_day(paged: Path, expect_log: ExpectLog) -> None:
    """The first time it is whole."""
    expect_log("page 21 is damaged")
    db = open_database(f"sqlite://{paged}")
    second = trio.Event()
    begun = []

    def begin() -> None:
        begun.append(db.failure.problem)
        if len(begun) == 2:
            pages.flip(paged, 20 * pages.PAGE * 8 + 77)
            second.set()

    with pytest.MonkeyPatch.context() as patch, trio.fail_after(5):
        patch.setattr(db, "forget_cached_pages", begin)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(verify_forever, db, 0.001)
            await second.wait()
            with pytest.raises(InputOutput, match="page 21"):
                await db.failure.watch(60)
            nursery.cancel_scope.cancel()
    assert begun[:2] == [None, None]
    db.close()


def test_cached_pages_are_let_go(paged: Path) -> None:
    """The kernel's memory is let go, so what is read comes from the disk."""
    db = pages.opened(paged)
    db.forget_cached_pages()
    verify_at_once(db)
    db.close()
