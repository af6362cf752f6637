"""A kernel for clients without a mount: it writes down what it is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from dfsmount.client import FileSystem
from dfsmount.leases.kernel import Notices


class Kernel:
    """Writes down what it is told to forget."""

    def __init__(self) -> None:
        self.names: list[tuple[int, bytes]] = []
        self.known: list[int] = []

    def forget_inode(self, inode: int, data: bool) -> bool:
        return True

    def forget_pages(self, inode: int, offset: int, end: int | None) -> bool:
        return True

    def expire_names(self) -> bool:
        return False

    def forget_name(self, parent: int, name: bytes) -> None:
        self.names.append((parent, name))

    def inodes(self) -> list[int]:
        return self.known


@contextmanager
def kernel_of(client: FileSystem, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """A kernel for the client, told without threads, which a virtual clock would not wait for."""

    async def inline(
        self: Notices,
        inodes: dict[int, bool],
        names: list[tuple[int, bytes]],
        pages: Iterable[tuple[int, int, int | None]] = (),
    ) -> None:
        for parent, name in names:
            self.kernel.forget_name(parent, name)
        for inode, data in inodes.items():
            self.kernel.forget_inode(inode, data)

    monkeypatch.setattr(Notices, "_in_thread", inline)
    client.notices.kernel = kernel = Kernel()
    yield kernel
