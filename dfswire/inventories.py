"""Inventories: which chunks a disk holds, or what has changed there since metad heard it last.

Chunkds send them page by page, and metad compares them with what it believes; it answers with what
it does not know.
"""

from __future__ import annotations

from dfswire.messages import CHUNK_ID_BYTES, ChunkId, Message, Natural

INVENTORY_PAGE_CHUNKS = 65_536


class Inventory(Message, frozen=True, kw_only=True):
    """A page of the chunk ids that a disk holds: all ids in [first, last], sorted, concatenated.

    Pages cover the whole id space in order; metad compares each range with what it believes.
    """

    server_id: str
    incarnation: int
    disk: str
    first: ChunkId
    last: ChunkId
    chunks: bytes
    number: Natural = 0  # of the whole inventory, counted by this process for this disk

    def __post_init__(self) -> None:
        if len(self.chunks) % CHUNK_ID_BYTES:
            raise ValueError("inventory is not a sequence of chunk ids")


class InventoryReply(Message, frozen=True, kw_only=True):
    """Ids that metad does not know: to be kept aside, not deleted.

    `hold`: what was set aside does not expire now, for metad itself was restored and may be the one
    that does not know.
    """

    unknown: list[ChunkId] = []
    hold: bool = False


class InventoryChanges(Message, frozen=True, kw_only=True):
    """What differs on a disk from what metad has heard: chunk ids, each sorted and concatenated.

    `after` is the number of the inventory, or of the changes, that metad confirmed last.
    """

    server_id: str
    incarnation: int
    disk: str
    after: Natural
    gone: bytes = b""
    new: bytes = b""

    def __post_init__(self) -> None:
        if len(self.gone) % CHUNK_ID_BYTES or len(self.new) % CHUNK_ID_BYTES:
            raise ValueError("changes are not sequences of chunk ids")


class ChangesReply(Message, frozen=True, kw_only=True):
    """`unknown` and `hold` as in InventoryReply.  `whole`: metad cannot use changes, for it does
    not remember `after`; an inventory is wanted instead."""

    unknown: list[ChunkId] = []
    hold: bool = False
    whole: bool = False
