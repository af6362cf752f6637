"""The handlers that pyfuse3 does not have, without a kernel: each call is answered exactly once."""

from __future__ import annotations

import errno
import fcntl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfsmount.lowlevel.library import ANSWERED, Call, Kind, Request
from dfsmount.lowlevel.operations import (
    FSGETXATTR,
    FSSETXATTR,
    FSXATTR,
    GETFLAGS,
    SETFLAGS,
    Operations,
)
from dfsmount.lowlevel.requests import Requests
from dfsmount.vfs import Vfs
from dfswire.errors import NoData, NotPermitted, Unavailable, WouldBlock
from dfswire.locks import LockType, Range
from dfswire.operations import FS_APPEND, FS_IMMUTABLE, FS_NODUMP

FS_OTHER = 0x10000


class FakeLibrary:
    """Notes the answers, by the number of the call."""

    def __init__(self) -> None:
        self.current = Request()
        self.answers: list[tuple[int, object]] = []

    def answer_early(self, unique: int, error: int) -> None:
        self.answers.append((unique, ("early", error)))

    def reply_error(self, call: Call, error: int) -> None:
        self.answers.append((call.unique, ("error", error)))

    def reply_count(self, call: Call, count: int) -> None:
        self.answers.append((call.unique, ("count", count)))

    def reply_offset(self, call: Call, offset: int) -> None:
        self.answers.append((call.unique, ("offset", offset)))

    def reply_ioctl(self, call: Call, data: bytes) -> None:
        self.answers.append((call.unique, ("ioctl", data)))

    def reply_lock(self, call: Call, kind: int, start: int, length: int, pid: int) -> None:
        self.answers.append((call.unique, ("lock", kind, start, length, pid)))


class FakeVfs:
    """Notes what is asked; answers when `gate` is open, with `problem` if there is one."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.flags = 0
        self.found: Range | None = None
        self.gate = trio.Event()
        self.gate.set()
        self.problem: Exception | None = None

    async def _note(self, *what: object) -> None:
        self.asked.append(what)
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem

    async def seek(self, *arguments: int) -> int:
        await self._note("seek", *arguments)
        return 4096

    async def fallocate(self, *arguments: int) -> None:
        await self._note("fallocate", *arguments)

    async def copy_range(self, *arguments: int) -> int:
        await self._note("copy_range", *arguments)
        return 77

    async def get_lock(self, *arguments: object) -> Range | None:
        await self._note("get_lock", *arguments)
        return self.found

    async def set_lock(self, *arguments: object) -> None:
        await self._note("set_lock", *arguments)

    async def flock(self, *arguments: object) -> None:
        await self._note("flock", *arguments)

    async def get_flags(self, inode: int) -> int:
        await self._note("get_flags", inode)
        return self.flags

    async def set_flags(self, inode: int, flags: int) -> None:
        await self._note("set_flags", inode, flags)
        self.flags = flags


class Scene:
    def __init__(self, nursery: trio.Nursery) -> None:
        self.library = FakeLibrary()
        self.vfs = FakeVfs()
        self.dying: set[int] = set()
        self.forgotten = 0
        self.requests = Requests(self.library, self.forget, lambda pid: pid in self.dying)
        self.requests.nursery = nursery
        self.operations = Operations(cast(Vfs, self.vfs), self.library, self.requests)

    async def forget(self) -> None:
        self.forgotten += 1

    async def answer(self, kind: Kind, **fields: Any) -> object:
        """The only answer to a call."""
        self.library.answers.clear()
        self.operations.start(Call(kind=kind, unique=8, **fields))
        await wait_all_tasks_blocked()
        ((unique, answer),) = self.library.answers
        assert unique == 8
        return answer


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    async with trio.open_nursery() as nursery:
        yield Scene(nursery)
        nursery.cancel_scope.cancel()


def ioctl(command: int, data: bytes = b"", room_bytes: int = 0) -> dict[str, Any]:
    call = Call(command=command, inode=3, data_bytes=len(data), reply_room_bytes=room_bytes)
    call.data_[: len(data)] = list(data)
    fields = ("command", "inode", "data_bytes", "reply_room_bytes", "data_")
    return {name: getattr(call, name) for name in fields}


def number(flags: int) -> bytes:
    return flags.to_bytes(4, sys.byteorder)


async def test_ranges() -> None:
    async with scene() as one:
        assert await one.answer(Kind.LSEEK, handle=5, offset=9, argument=4) == ("offset", 4096)
        answer = await one.answer(Kind.FALLOCATE, handle=5, argument=3, offset=1 << 40, length=7)
        assert answer == ("error", 0)
        answer = await one.answer(
            Kind.COPY_FILE_RANGE, handle=5, offset=1, handle_out=6, offset_out=2, length=99
        )
        assert answer == ("count", 77)
        assert one.vfs.asked == [
            ("seek", 5, 9, 4),
            ("fallocate", 5, 3, 1 << 40, 7),
            ("copy_range", 5, 1, 6, 2, 99),
        ]


async def test_a_lock_that_is_in_the_way() -> None:
    async with scene() as one:
        fields = {"inode": 3, "owner": 1 << 63, "lock_type": LockType.WRITE, "offset": 10}
        assert await one.answer(Kind.GETLK, **fields) == ("lock", LockType.UNLOCK, 0, 0, 0)
        assert one.vfs.asked == [("get_lock", 3, 1 << 63, Range(type=LockType.WRITE, start=10))]
        one.vfs.found = Range(type=LockType.READ, start=20, end=29, pid=44)
        assert await one.answer(Kind.GETLK, **fields) == ("lock", LockType.READ, 20, 10, 44)
        one.vfs.found = Range(type=LockType.READ, start=20)
        assert await one.answer(Kind.GETLK, **fields) == ("lock", LockType.READ, 20, 0, 0)


async def test_locks() -> None:
    async with scene() as one:
        fields = {"handle": 5, "owner": 9, "lock_pid": 44, "offset": 10}
        for kind, wait in ((LockType.READ, 1), (LockType.WRITE, 0), (LockType.UNLOCK, 0)):
            answer = await one.answer(
                Kind.SETLK, **fields, length=10, lock_type=kind, argument=wait
            )
            assert answer == ("error", 0)
            wanted = Range(type=kind, start=10, end=19)
            assert one.vfs.asked.pop() == ("set_lock", 5, 9, 44, wanted, bool(wait))
        one.vfs.problem = WouldBlock("somebody has it")
        assert await one.answer(Kind.SETLK, **fields) == ("error", errno.EAGAIN)


@pytest.mark.parametrize(
    ("operation", "kind", "wait"),
    [
        (fcntl.LOCK_SH, LockType.READ, True),
        (fcntl.LOCK_EX | fcntl.LOCK_NB, LockType.WRITE, False),
        (fcntl.LOCK_UN, LockType.UNLOCK, True),
    ],
)
async def test_locks_of_open_files(operation: int, kind: LockType, wait: bool) -> None:
    async with scene() as one:
        answer = await one.answer(Kind.FLOCK, handle=5, owner=9, pid=44, argument=operation)
        assert answer == ("error", 0)
        assert one.vfs.asked == [("flock", 5, 9, kind, wait, 44)]


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": Kind.SETLK, "lock_type": LockType.READ, "argument": 1},
        {"kind": Kind.FLOCK, "argument": fcntl.LOCK_EX},
    ],
)
async def test_any_signal_ends_the_waiting_for_a_lock(fields: dict[str, int]) -> None:
    async with scene() as one:
        one.vfs.gate = trio.Event()
        one.operations.start(Call(unique=8, pid=4, **fields))
        await wait_all_tasks_blocked()
        one.requests.interrupted(8)
        await wait_all_tasks_blocked()
        assert one.library.answers == [(8, ("error", errno.EINTR))]


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": Kind.SETLK, "lock_type": LockType.READ},
        {"kind": Kind.SETLK, "lock_type": LockType.UNLOCK, "argument": 1},
        {"kind": Kind.FLOCK, "argument": fcntl.LOCK_EX | fcntl.LOCK_NB},
        {"kind": Kind.FLOCK, "argument": fcntl.LOCK_UN},
    ],
)
async def test_no_signal_ends_what_waits_for_metad_only(
    fields: dict[str, int], autojump_clock: MockClock
) -> None:
    async with scene() as one:
        one.vfs.gate = trio.Event()
        one.operations.start(Call(unique=8, pid=4, **fields))
        await wait_all_tasks_blocked()
        one.requests.interrupted(8)
        await trio.sleep(60)
        assert one.library.answers == []
        one.vfs.gate.set()
        await wait_all_tasks_blocked()
        assert one.library.answers == [(8, ("error", 0))]


async def test_flags() -> None:
    async with scene() as one:
        assert await one.answer(Kind.IOCTL, **ioctl(SETFLAGS, number(0x30))) == ("ioctl", b"")
        assert await one.answer(Kind.IOCTL, **ioctl(GETFLAGS, b"", 4)) == ("ioctl", number(0x30))
        long = (0x30).to_bytes(8, sys.byteorder)  # Linux before 5.13 passes the program's long
        assert await one.answer(Kind.IOCTL, **ioctl(GETFLAGS, b"", 8)) == ("ioctl", long)


async def test_flags_in_their_other_form() -> None:
    async with scene() as one:
        one.vfs.flags = FS_OTHER | FS_IMMUTABLE
        wanted = FSXATTR.pack(0x10 | 0x80, 0, 0, 0, 0)
        assert await one.answer(Kind.IOCTL, **ioctl(FSSETXATTR, wanted)) == ("ioctl", b"")
        assert one.vfs.flags == FS_OTHER | FS_APPEND | FS_NODUMP
        assert await one.answer(Kind.IOCTL, **ioctl(FSGETXATTR, b"", 28)) == ("ioctl", wanted)


@pytest.mark.parametrize("fields", [(0x20, 0, 0, 0, 0), (0, 1, 0, 0, 0), (0, 0, 0, 9, 0)])
async def test_what_the_other_form_cannot_set(fields: tuple[int, ...]) -> None:
    async with scene() as one:
        answer = await one.answer(Kind.IOCTL, **ioctl(FSSETXATTR, FSXATTR.pack(*fields)))
        assert answer == ("error", errno.EOPNOTSUPP)
        assert one.vfs.asked == []


async def test_an_ioctl_that_is_not_known() -> None:
    async with scene() as one:
        assert await one.answer(Kind.IOCTL, **ioctl(0x5401)) == ("error", errno.ENOTTY)


async def test_errors() -> None:
    async with scene() as one:
        one.vfs.problem = NoData("past the end")
        assert await one.answer(Kind.LSEEK) == ("error", errno.ENXIO)
        one.vfs.problem = NotPermitted("immutable")
        assert await one.answer(Kind.FALLOCATE) == ("error", errno.EPERM)


async def test_an_error_that_is_not_the_callers_is_logged(expect_log: Any) -> None:
    expect_log("copy_file_range: metad is away")
    async with scene() as one:
        one.vfs.problem = Unavailable("metad is away")
        assert await one.answer(Kind.COPY_FILE_RANGE) == ("error", errno.EIO)


async def test_calls_are_answered_when_the_mount_ends() -> None:
    async with scene() as one:
        one.vfs.gate = trio.Event()
        one.operations.start(Call(kind=Kind.LSEEK, unique=8))
        one.operations.start(Call(kind=Kind.FALLOCATE, unique=10))
        await wait_all_tasks_blocked()
        one.operations.start(Call(kind=Kind.IOCTL, unique=12, command=GETFLAGS))  # not begun yet
    expected = {(unique, ("error", errno.EIO)) for unique in (8, 10, 12)}
    assert set(one.library.answers) == expected
    assert len(one.library.answers) == 3


async def test_a_signal_before_the_task_has_begun(autojump_clock: MockClock) -> None:
    async with scene() as one:
        one.vfs.gate = trio.Event()
        one.dying.add(4)
        one.operations.start(Call(kind=Kind.LSEEK, unique=8, pid=4))
        one.requests.interrupted(8)
        await trio.sleep(2)
        assert one.library.answers == [(8, ("error", errno.EINTR))]


async def test_a_change_goes_on_without_its_caller(autojump_clock: MockClock) -> None:
    async with scene() as one:
        one.vfs.gate = trio.Event()
        one.operations.start(Call(kind=Kind.COPY_FILE_RANGE, unique=8, pid=4))
        await wait_all_tasks_blocked()
        one.dying.add(4)
        one.requests.interrupted(8)
        await trio.sleep(2)
        assert one.library.answers == [(8, ("early", errno.EINTR))]
        one.vfs.gate.set()
        await wait_all_tasks_blocked()
        assert one.library.answers[1:] == [(8, ("error", ANSWERED))]
        assert one.forgotten == 1
