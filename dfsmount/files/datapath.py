"""The data path of one mount, put together: everything between the vfs and the chunkds.

`dfsmount.__main__` (and the cluster simulation) makes one `DataPath` and starts `run`; the vfs asks
it for readers and writers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import trio

from dfsmount.files.blockcache import BlockCache
from dfsmount.files.durability import Durability
from dfsmount.files.layouts import LAYOUTS_MAX, Layouts
from dfsmount.files.reader import PREFETCHES_MAX, ReadContext, Reader
from dfsmount.files.uploader import Uploader
from dfsmount.files.writeback import WriteBack, WriteSettings
from dfsmount.files.writer import Writer
from dfsmount.ports import Caller, Metadata
from dfsmount.remote.chunkclient import ChunkClient
from dfsmount.remote.followed import FollowedPolicies
from dfsmount.remote.grants import GrantPool
from dfsmount.remote.serverhealth import ServerHealth
from dfswire.messages import Attr


@dataclass(frozen=True)
class DataSettings:
    """What the session grant and the mount options say."""

    write: WriteSettings
    replicas: int
    cache_bytes: int = 256 << 20
    layouts_max: int = LAYOUTS_MAX
    local_hosts: Iterable[str] = ()  # host parts of this machine's own addresses


class DataPath:
    """Readers and writers of one mount.  All background work runs in `nursery`."""

    def __init__(
        self,
        client: Caller,
        metadata: Metadata,
        nursery: trio.Nursery,
        settings: DataSettings,
        policies: FollowedPolicies,
        valid: Callable[[], bool] = lambda: True,
    ) -> None:
        """`valid()`: is what metad has told still true?"""
        self.health = health = ServerHealth(settings.local_hosts)
        self.grants = GrantPool(metadata, health, nursery, policies)
        self.layouts = Layouts(metadata, inodes_max=settings.layouts_max, valid=valid)
        self.chunks = ChunkClient(client, metadata, health, nursery)
        uploader = Uploader(self.grants, self.chunks, replicas=settings.replicas)
        self.durability = Durability(metadata, self.chunks, needed=uploader.needed)
        self.writeback = WriteBack(
            metadata, self.layouts, uploader, self.durability, nursery, settings.write, policies
        )
        self.cache = BlockCache(self.chunks.read, settings.cache_bytes)
        self._reading = ReadContext(
            self.layouts, self.cache, nursery, trio.Semaphore(PREFETCHES_MAX)
        )

    async def run(self) -> None:
        """Age limit of dirty data, and the record of unsynced chunks.  Ends by cancellation."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.writeback.run)
            nursery.start_soon(self.durability.run)

    @property
    def dirty_bytes(self) -> int:
        """Written, and not stored yet."""
        return self.writeback.budget.used_bytes

    def reader(self, inode: int) -> Reader:
        """For one open handle."""
        return Reader(inode, self._reading)

    def writer(
        self, inode: int, *, on_attr: Callable[[Attr], None] | None = None, size: int = 0
    ) -> Writer:
        """For one inode, as long as it is open; see Writer."""
        return Writer(inode, self.writeback, on_attr=on_attr, size=size)

    def session_lost(self) -> None:
        """Nothing that metad told the old session is to be believed."""
        self.layouts.clear()
        self.grants.clear()
