"""What the client's data path needs from the rest of the client, as small interfaces.

`metaclient` and `dfswire.client.Client` fulfil them in a real mount, the fakes of the tests in a
unit test.  Nothing here has behaviour.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from dfswire.metadata import GrantReply, LayoutReply
from dfswire.operations import AnyOperation, OpResult


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
