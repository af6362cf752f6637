"""Directories: pages and cookies, with a directory that changes under its reader."""

from __future__ import annotations

import pytest

from dfsmount.names.directories import Directories
from dfswire.errors import BadHandle
from dfswire.messages import Attr, DirEntry
from tests.t2_dfsmount.fakes_meta import attr

PAGE = 3


class Metad:
    """A directory as {cookie: name}; answers in pages of PAGE entries."""

    def __init__(self, names: list[bytes]) -> None:
        self.names = dict(enumerate(names, start=3))
        self.asked: list[int] = []

    async def fetch(self, inode: int, cookie: int) -> tuple[list[DirEntry], bool, Attr]:
        self.asked.append(cookie)
        rest = [
            DirEntry(name=name, cookie=number, attr=attr(number + 100))
            for number, name in sorted(self.names.items())
            if number > cookie
        ]
        return rest[:PAGE], len(rest) <= PAGE, attr(1)

    async def getattr(self, inode: int) -> Attr:
        return attr(inode)


async def read_all(directories: Directories, handle: int, step: int) -> list[bytes]:
    """As the kernel does: take `step` entries of each answer, go on from the last cookie."""
    names, cookie = [], 0
    while page := (await directories.read(handle, cookie))[:step]:
        names += [entry.name for entry in page]
        cookie = page[-1].cookie
    return names


@pytest.mark.parametrize("step", [1, 2, 3, 100])
@pytest.mark.parametrize("count", [0, 1, 3, 7])
async def test_every_name_once(count: int, step: int) -> None:
    names = [b"n%d" % number for number in range(count)]
    metad = Metad(names)
    directories = Directories(metad.fetch, metad.getattr)
    handle = directories.open(7)
    assert await read_all(directories, handle, step) == [b".", b"..", *names]


async def test_a_page_answers_many_questions() -> None:
    metad = Metad([b"a", b"b", b"c"])
    directories = Directories(metad.fetch, metad.getattr)
    await read_all(directories, directories.open(7), 1)
    assert metad.asked == [2]


async def test_an_empty_directory_is_asked_for_once_more_at_most() -> None:
    metad = Metad([])
    directories = Directories(metad.fetch, metad.getattr)
    assert await read_all(directories, directories.open(7), 10) == [b".", b".."]
    assert len(metad.asked) == 1


async def test_names_made_and_removed_while_reading() -> None:
    metad = Metad([b"n%d" % number for number in range(9)])
    directories = Directories(metad.fetch, metad.getattr)
    handle = directories.open(7)
    first = await directories.read(handle, 0)
    seen = [entry.name for entry in first]
    for cookie in (3, 4, 8):
        del metad.names[cookie]
    metad.names[50] = b"late"
    cookie = first[-1].cookie
    while page := await directories.read(handle, cookie):
        seen += [entry.name for entry in page]
        cookie = page[-1].cookie
    assert len(seen) == len(set(seen))
    assert {b"n%d" % number for number in (2, 3, 4, 6, 7, 8)} <= set(seen)
    assert b"late" in seen


async def test_rewinding_sees_new_names_and_an_earlier_cookie_is_answered() -> None:
    metad = Metad([b"a", b"b", b"c", b"d"])
    directories = Directories(metad.fetch, metad.getattr)
    handle = directories.open(7)
    await read_all(directories, handle, 10)
    metad.names[60] = b"new"
    assert b"new" in await read_all(directories, handle, 10)
    assert next(entry.name for entry in await directories.read(handle, 3)) == b"b"


async def test_closed_handles_are_unknown() -> None:
    metad = Metad([])
    directories = Directories(metad.fetch, metad.getattr)
    handle = directories.open(7)
    assert directories.inode(handle) == 7
    directories.close(handle)
    with pytest.raises(BadHandle):
        await directories.read(handle, 0)
