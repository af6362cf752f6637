"""SQLite, or a work, gets no more memory: what was not committed is undone, and nobody hangs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from dfswire.errors import Unavailable
from metad.storage.database import Database
from metad.storage.opening import open_database
from tests.t2_metad.test_group_commit import ADD, add, names


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Database]:
    """A database on disk."""
    database = open_database(f"sqlite://{tmp_path}/db")
    yield database
    database.close()


@pytest.mark.parametrize("is_ended", [False, True])
async def test_out_of_memory_the_whole_group_is_undone(
    disk: Database, expect_log: Callable[[str], None], is_ended: bool
) -> None:
    """Nobody is left waiting, and the next group is as any other."""
    expect_log("out of memory")

    def run_out() -> None:
        disk.change(ADD, (b"half",))
        if is_ended:
            disk.change("ROLLBACK")
        raise MemoryError

    async def expect(work: Callable[[], object]) -> None:
        with pytest.raises(Unavailable):
            await disk.write(work)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, lambda: disk.change(ADD, (b"a",)))
            nursery.start_soon(expect, run_out)
            nursery.start_soon(expect, lambda: disk.change(ADD, (b"b",)))
        assert names(disk) == []
        await add(disk, b"c")
    assert names(disk) == [b"c"]


@pytest.mark.parametrize("calls", [["commit"], ["begin", "roll_back"]])
async def test_out_of_memory_in_a_commit_or_a_roll_back_is_the_end(
    disk: Database,
    expect_log: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    calls: list[str],
) -> None:
    """Nobody knows what happened: the next metad looks."""
    expect_log("MemoryError")
    if "begin" in calls:
        expect_log("out of memory")

    def run_out() -> None:
        raise MemoryError

    with monkeypatch.context() as patch, trio.fail_after(10):
        for call in calls:
            patch.setattr(disk, call, run_out)
        with pytest.raises(Unavailable):
            await add(disk, b"a")
    assert disk.failure.problem is not None
