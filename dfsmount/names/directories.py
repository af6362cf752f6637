"""Open directories: reading them page by page, with cookies that stay right while they change.

A page is what metad sends for one question (up to 4,096 entries in cookie order).  The kernel asks
for a few dozen entries at a time and may come back with any earlier cookie; the page at hand
answers as long as it can, another question does otherwise.  "." and ".." have the cookies 1 and 2.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dfswire.errors import BadHandle
from dfswire.messages import Attr, DirEntry

COOKIE_DOT, COOKIE_DOTDOT = 1, 2

Fetch = Callable[[int, int], Awaitable[tuple[list[DirEntry], bool, Attr]]]


@dataclass
class _Directory:
    """One opendir(3).  The page at hand has the entries that follow the cookie `after`, up to its
    last one, or, if `end`, all of them."""

    inode: int
    page: list[DirEntry] | None = None
    after: int = 0
    end: bool = False

    def rest(self, cookie: int) -> list[DirEntry] | None:
        """What is known to follow `cookie`; None when metad must be asked."""
        if self.page is None or cookie < self.after:
            return None
        rest = self.page[bisect_right(self.page, cookie, key=lambda entry: entry.cookie) :]
        return rest if rest or self.end else None


class Directories:
    """The table of open directories.  `fetch(inode, cookie)` asks metad, `getattr` is the vfs's."""

    def __init__(self, fetch: Fetch, getattr_: Callable[[int], Awaitable[Attr]]) -> None:
        self._fetch = fetch
        self._getattr = getattr_
        self._open: dict[int, _Directory] = {}
        self._next_handle = 1

    def open(self, inode: int) -> int:
        number, self._next_handle = self._next_handle, self._next_handle + 1
        self._open[number] = _Directory(inode)
        return number

    def close(self, number: int) -> None:
        del self._open[number]

    def inode(self, number: int) -> int:
        return self._directory(number).inode

    async def read(self, number: int, cookie: int) -> list[DirEntry]:
        """Some entries with cookies greater than `cookie`; none at the end.

        Starting again at 0 (rewinddir) always asks metad.
        """
        directory = self._directory(number)
        rest = directory.rest(cookie) if cookie else None
        if rest is None:
            page, end, parent = await self._fetch(directory.inode, max(cookie, COOKIE_DOTDOT))
            if cookie < COOKIE_DOTDOT:
                dots = await self._dots(directory.inode, parent)
                page = [*dots[cookie:], *page]
            directory.page, directory.after, directory.end = page, cookie, end
            rest = page
        return rest

    async def _dots(self, inode: int, parent: Attr) -> list[DirEntry]:
        return [
            DirEntry(name=b".", cookie=COOKIE_DOT, attr=await self._getattr(inode)),
            DirEntry(name=b"..", cookie=COOKIE_DOTDOT, attr=parent),
        ]

    def _directory(self, number: int) -> _Directory:
        try:
            return self._open[number]
        except KeyError as problem:
            raise BadHandle(f"no open directory with handle {number}") from problem
