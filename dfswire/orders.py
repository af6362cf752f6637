"""What metad orders chunkds to do with chunks, and what became of it.

metad calls nobody: orders ride on heartbeat replies, and results on later heartbeats.  The number
of an order is metad's; the result names it, and so does the calling off.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from dfswire.messages import ChunkId, Message, Natural, Replica


class Piece(Message, frozen=True, kw_only=True):
    """A part of a chunk to be assembled: of another chunk, or the bytes themselves."""

    length: Annotated[int, msgspec.Meta(ge=1)]
    chunk: bytes = b""
    chunk_offset: Natural = 0
    chunk_length: Natural = 0
    digest: bytes = b""
    sources: list[Replica] = []
    data: bytes = b""

    def __post_init__(self) -> None:
        if not self.chunk and len(self.data) != self.length:
            raise ValueError("a piece needs a chunk or its bytes")


class Order(Message, frozen=True, kw_only=True):
    """One thing to do: a `kind` that the chunkd does not know fails, and harms no other order.

    `copy`: fetch the chunk from `sources`, verify, keep on `disk`.  `delete`.  `rebuild`: no source
    is good; make it of the good blocks of all of them.  `assemble`: make a new chunk of `pieces`.
    `verify` with a `digest`: other content than that is bad.
    """

    order_id: int
    kind: str
    chunk: ChunkId
    disk: str
    length: Natural = 0
    digest: bytes = b""
    sources: list[Replica] = []
    pieces: list[Piece] = []


class OrderResult(Message, frozen=True, kw_only=True):
    """`lost`: blocks of which a rebuild found no good copy, though every source was asked;
    `unreachable`: addresses of sources of a copy that gave no answer; `digest`: of the chunk that
    was assembled."""

    order_id: int
    ok: bool
    reason: str = ""
    lost: list[Natural] = []
    unreachable: list[str] = []
    digest: bytes = b""
