"""Notices: the kernel forgets, and nobody waits for an operation of our own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from dfsmount.leases.kernel import CONTESTED_S, LOCK_PATIENCE_S, MANY_NAMES, Notices
from tests.t2_dfsmount.fakes_meta import FakeKernel

LONG_S = 30.0


@pytest.fixture
def kernel() -> Iterator[FakeKernel]:
    fake = FakeKernel()
    yield fake
    fake.gate.set()


@pytest.fixture
def notices(nursery: trio.Nursery, kernel: FakeKernel) -> Notices:
    made = Notices(nursery)
    made.kernel = kernel
    return made


async def test_a_change_of_our_own_in_the_directory_is_not_waited_for(
    notices: Notices, kernel: FakeKernel
) -> None:
    """By a kernel that can't let names expire: it forgets when the change is done."""
    kernel.gate.clear()
    notices.changing[1] = 1
    with trio.fail_after(LONG_S):
        await notices.tell({}, [(1, b"a")])
    assert kernel.heard == []
    kernel.gate.set()


async def test_where_we_change_a_directory_all_names_expire(
    notices: Notices, kernel: FakeKernel
) -> None:
    kernel.expires = True
    kernel.gate.clear()
    notices.changing[1] = 1
    assert not notices.is_contested(1)
    await notices.tell({}, [(1, b"a")])
    assert kernel.heard == [(0, "all names")]
    assert notices.is_contested(1) and not notices.is_contested(2)
    await notices.tell({}, [(1, b"b")])
    assert kernel.heard == [(0, "all names")], "the kernel has no name of it to forget"


async def test_a_directory_is_contested_for_a_while(
    notices: Notices, kernel: FakeKernel, mock_clock: trio.testing.MockClock
) -> None:
    kernel.expires = True
    notices.changing[1] = 1
    await notices.tell({}, [(1, b"a")])
    mock_clock.jump(CONTESTED_S - 1)
    await notices.tell({}, [(1, b"a")])
    mock_clock.jump(CONTESTED_S - 1)
    assert notices.is_contested(1)
    del notices.changing[1]
    await notices.tell({}, [(1, b"a")])
    mock_clock.jump(1)
    assert not notices.is_contested(1)
    await notices.tell({}, [(1, b"a")])
    assert kernel.heard == [(0, "all names"), (1, b"a")]


async def test_a_name_moved_into_a_contested_directory_expires_too(
    notices: Notices, kernel: FakeKernel
) -> None:
    kernel.expires = True
    notices.changing[1] = 1
    await notices.tell({}, [(1, b"a")])
    kernel.gate.clear()
    notices.moved(1, b"b")
    await notices.tell({}, [(1, b"b")])
    assert kernel.heard == [(0, "all names")] * 2
    kernel.gate.set()


async def test_an_answer_on_its_way_into_the_kernel_expires_too(
    notices: Notices, kernel: FakeKernel
) -> None:
    """An entry alone would be made valid again by it; see justanswered.py."""
    kernel.expires = True
    notices.looked_up(1, b"a")
    await notices.tell({}, [(1, b"b")])
    assert kernel.heard == [(1, b"b")]
    await notices.tell({}, [(1, b"a")])
    assert kernel.heard == [(1, b"b"), (0, "all names")]
    assert notices.is_contested(1), "or it would all go on like that"


async def test_a_kernel_that_cannot_let_all_expire_is_told_of_an_answer_on_its_way_twice(
    notices: Notices, kernel: FakeKernel
) -> None:
    notices.looked_up(1, b"a")
    await notices.tell({}, [(1, b"a")])
    assert kernel.heard == [(1, b"a")] * 2


@pytest.mark.parametrize("expires", [True, False])
async def test_a_directory_that_is_locked_for_long(
    notices: Notices, kernel: FakeKernel, expires: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a lookup of ours, say, that waits at metad."""
    monkeypatch.setattr("dfsmount.leases.kernel.PATIENCE_S", 3 * LOCK_PATIENCE_S)
    kernel.expires = expires
    kernel.gate.clear()
    with trio.fail_after(LONG_S):
        await notices.tell({}, [(1, b"a")])
    assert kernel.heard == ([(0, "all names")] if expires else [])
    kernel.gate.set()


async def test_many_names_expire_at_once(
    notices: Notices, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A thread that gets no processor for so long looks like a locked directory: told twice.
    monkeypatch.setattr("dfsmount.leases.kernel.LOCK_PATIENCE_S", LONG_S)
    names = [(1, b"%d" % number) for number in range(MANY_NAMES)]
    await notices.tell({}, names)
    assert kernel.heard == names
    kernel.heard.clear()
    kernel.expires = True
    await notices.tell({7: True}, names)
    assert kernel.heard == [(0, "all names"), (7, True)]
    assert not notices.is_contested(1)


@pytest.mark.parametrize("began", ["before", "meanwhile"])
async def test_pages_of_a_request_under_way_are_not_waited_for(
    notices: Notices, kernel: FakeKernel, nursery: trio.Nursery, began: str
) -> None:
    kernel.gate.clear()
    told = trio.Event()

    async def tell() -> None:
        await notices.tell({7: True}, [])
        told.set()

    if began == "meanwhile":
        nursery.start_soon(tell)
        await trio.testing.wait_all_tasks_blocked()
    with notices.locking(7, 10_000, 5000) as locked, notices.locking(7, 4096, 10):
        before = locked.version
        if began == "before":
            nursery.start_soon(tell)
        with trio.fail_after(LONG_S):
            await told.wait()
        assert kernel.heard == [(7, (0, 4096)), (7, (16_384, None))]
        assert (locked.version > before) == (began == "before")
    kernel.gate.set()


async def test_attributes_are_forgotten_whatever_is_under_way(
    notices: Notices, kernel: FakeKernel
) -> None:
    with notices.locking(7, 0, 10) as locked:
        await notices.tell({7: False}, [])
        assert locked.version == 0
    assert kernel.heard == [(7, False)]


async def test_patience_with_the_kernel_ends(
    notices: Notices, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfsmount.leases.kernel.PATIENCE_S", 0.01)
    kernel.gate.clear()
    with trio.fail_after(LONG_S):
        await notices.tell({7: True}, [])
    assert kernel.heard == []
    kernel.gate.set()


async def test_the_end_waits_for_what_the_kernel_is_being_told(
    notices: Notices, kernel: FakeKernel
) -> None:
    """Also where nobody else does any more; then the kernel is told nothing."""
    kernel.gate.clear()
    with trio.move_on_after(LOCK_PATIENCE_S):
        await notices.tell({7: False}, [])
    assert not kernel.heard
    with trio.move_on_after(LOCK_PATIENCE_S) as patience:
        await notices.end()
    assert patience.cancelled_caught
    kernel.gate.set()
    with trio.fail_after(LONG_S):
        await notices.end()
    assert kernel.heard == [(7, False)]
    await notices.tell({1: False}, [])
    assert kernel.heard == [(7, False)]


async def test_an_inode_whose_first_answer_is_on_its_way_is_told_of_until_it_is_known(
    notices: Notices, kernel: FakeKernel
) -> None:
    kernel.learning = {7: 3}
    await notices.tell({7: False, 8: True}, [])
    assert kernel.heard == [(7, False), (8, True), (7, False), (7, False), (7, False)]


async def test_an_inode_that_never_becomes_known_is_not_told_of_for_ever(
    notices: Notices, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfsmount.leases.kernel.LEARNING_S", 0.05)
    kernel.learning = {7: 10**9}
    with trio.fail_after(LONG_S):
        await notices.tell({7: False}, [])
    assert len(kernel.heard) > 1
