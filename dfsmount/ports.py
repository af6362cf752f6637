"""What parts of the client need from each other, as small interfaces.

The data path speaks to `Metadata` and `Caller`, which are `metaclient` and `dfswire.client.Client`
in a real mount; the session tells a `Listener` (coherence.py) what to forget.  Unit tests have
fakes for them.  Nothing here has behaviour.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from dfswire.batches import OpResult
from dfswire.locks import HeldLocks
from dfswire.messages import Invalidation, Lease
from dfswire.metadata import GrantReply, LayoutReply
from dfswire.operations import AnyOperation


class Metadata(Protocol):
    """The few questions that reading and writing data ask of metad."""

    async def submit(self, operation: AnyOperation, *, ends_lease: bool = False) -> OpResult:
        """Execute one mutation exactly once; waits while metad is away.

        `ends_lease`: nothing of the inode is dirty after this commit.
        Raises the error that the operation met (FileError, UnknownChunk), or SessionLost.
        """
        ...

    async def layout(self, inode: int, offset: int, length: int) -> LayoutReply:
        """Which extents cover this range.  Raises NoEntry, SessionLost, Unavailable."""
        ...

    async def seek(self, inode: int, offset: int, whence: int) -> int:
        """Where data or a hole begins from `offset` on.  Raises NoData, and as `layout` does."""
        ...

    async def grant(self, count: int, avoid: list[str], inode: int) -> GrantReply:
        """New chunks of a file, not on the servers `avoid`.  Raises NoSpace, Unavailable."""
        ...

    async def report_bad(self, chunk: bytes, disk: str, reason: str) -> None:
        """Tell metad that a replica did not give its bytes.  Raises Unavailable."""
        ...


class Caller(Protocol):
    """The part of `dfswire.client.Client` that the data path uses."""

    async def call(
        self,
        name: str,
        address: str,
        request: msgspec.Struct,
        *,
        deadline_s: float = 5.0,
        attempts: int | None = None,
        body: Any = None,
        body_length: int | None = None,
        into: memoryview | None = None,
    ) -> Any:
        """One remote call; for calls with a reply body the answer is (message, memoryview)."""
        ...


@dataclass
class Forgotten:
    """What this process has forgotten, and its kernel has not yet: inodes (True: their pages too),
    names in directories, and with `everything` all inodes that it may know."""

    inodes: dict[int, bool] = field(default_factory=dict)
    names: list[tuple[int, bytes]] = field(default_factory=list)
    everything: bool = False


class Listener(Protocol):
    """Who must forget, and knows what this client has open, locked and leased."""

    def forget(self, invalidations: list[Invalidation]) -> Forgotten:
        """This process does not serve these things any more; what is left to the kernel."""
        ...

    def forget_all(self) -> Forgotten:
        """The same of everything that is cached; data that is not yet committed stays."""
        ...

    async def tell_kernel(self, left: Forgotten) -> None:
        """Return when it will not serve this any more either."""

    async def drop_all(self) -> None:
        """`forget_all`, and the kernel too."""

    def open_inodes(self) -> list[int]:
        """All inodes that are open at this moment."""

    def held_locks(self) -> HeldLocks:
        """All locks of this client at this moment."""

    def recall(self, leases: list[Lease]) -> None:
        """Somebody waits for these exclusive leases: store what is dirty, in the background."""

    def leases_in_use(self) -> list[Lease]:
        """The exclusive leases that are still needed; all others end now."""

    def stream_opened(self) -> None:
        """metad has heard of the open inodes and of the leases in use."""

    async def session_lost(self) -> None:
        """The session ended: uncommitted data and grants are worth nothing any more."""
